"""The training loop, which resumes from the latest checkpoint."""

import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from mancs_jax.common import processes
from mancs_jax.common.screen import tell
from mancs_jax.config.names import sources
from mancs_jax.data import pk
from mancs_jax.training import checkpoint
from mancs_jax.training.batches import make_batches
from mancs_jax.training.description import Description
from mancs_jax.training.log import Diverged, MetricsLog, record_start
from mancs_jax.training.state import TrainState, create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import make_train_step, replicated
from mancs_jax.weights.start import load_into
from mancs_jax.workdir import Workdir

Validate = Callable[[TrainState], dict[str, float]]


def train(
    config: ConfigDict,
    workdir: Workdir,
    image: np.ndarray,
    labels: np.ndarray,
    num_ids: Sequence[int],
    description: Description,
    devices: list[jax.Device],
    validate: Validate | None = None,
) -> bool:
    """Trains from the latest checkpoint, if there is one, to the last step, and saves it.

    Args:
      config: of the run.
      workdir: gets checkpoints/, best/, config.json, run.json, metrics.jsonl and tensorboard/.
      image: uint8 [N, H, W, 3], the training images.
      labels: int32 [N], 0..C-1; those of the first source come first, and so on.
      num_ids: identities of each source of `config.data.name`, C in all.
      description: of every checkpoint; `best` follows the validation scores.
      devices: of all processes, over which a batch is split.
      validate: evaluates a state on held-out identities; its "mAP" selects the checkpoint in best/.

    Returns whether training ended; False where a signal stopped it, after saving. Raises Diverged where a loss, the
    gradient or a parameter is not finite; the latest checkpoint is kept.
    """
    steps_per_epoch = pk.steps_per_epoch(description.num_classes, config.data.p)
    schedule_steps, num_steps = count_steps(config, steps_per_epoch)
    schedule = learning_rate_schedule(config, steps_per_epoch, schedule_steps)
    optimizer = create_optimizer(config, schedule)
    make_step = partial(make_train_step, config, description.num_classes, optimizer, schedule, steps_per_epoch, devices)
    end_of_half_size = round(config.augment.half_size_epochs * steps_per_epoch)
    half_size_step, full_size_step = make_step(half_size=True), make_step()  # each compiles when it is first called
    gather_images, by_identity = make_batches(image, devices), pk.images_by_identity(labels)
    by_source = pk.split_by_source(by_identity, num_ids) if config.data.balance == "sources" else [by_identity]
    batch_size = config.data.p * config.data.k
    shape_by_device = (len(devices), batch_size // len(devices))
    own_devices = processes.own_rows(devices)
    save_every = to_steps(config.checkpoint_every, steps_per_epoch)
    validate_every = to_steps(config.eval_every, steps_per_epoch) if config.eval_every else num_steps

    with checkpoint.open_checkpoints(workdir.latest, config.keep_checkpoints) as manager:
        state, best = restore_or_create(manager, config, description, optimizer, devices)
        step = int(state.step)
        checkpoint.drop_after(workdir.best, step)
        description = description._replace(
            best=best if processes.first_answer(partial(has_whole_checkpoint, workdir.best)) else None
        )
        if processes.is_writer():
            record_start(workdir, description, devices, step)
        log = MetricsLog(workdir, step, num_steps, batch_size, config.log_every, processes.is_writer())
        with closing(log), stop_signals() as received_signals, _naming_kept_checkpoint(manager):
            is_stopped = False

            def validate_and_keep_best(validate: Validate) -> tuple[Description, int]:
                """Evaluates the state and saves it in best/ if it is the best: (description, step of the best)."""
                scores = validate(state)
                log.write(step, {f"validation/{name}": value for name, value in scores.items()})
                updated = keep_best(workdir, state, description, scores["mAP"])
                return updated, best_step if updated.best == description.best else step

            if len(num_ids) > 1:
                counts = zip(sources(config.data.name), num_ids, strict=True)
                log.say(f"training on {', '.join(f'{name} ({count} identities)' for name, count in counts)}")
            if step:
                log.say(f"resuming from step {step} of {num_steps}")
            patience = to_steps(config.early_stopping, steps_per_epoch) if config.early_stopping else num_steps
            best_step = processes.first_answer(lambda: checkpoint.latest_on_disk(workdir.best) or 0)
            if config.early_stopping and step == 0 and validate is not None:
                description, best_step = validate_and_keep_best(validate)
            while step < min(num_steps, best_step + patience) and not (
                is_stopped := processes.any_process(bool(received_signals), step)
            ):
                batch = pk.balanced_batch(by_source, config.data.p, config.data.k, config.seed, step)
                rows = batch.reshape(shape_by_device)[own_devices]  # of `image` and `labels`
                train_step = half_size_step if step < end_of_half_size else full_size_step
                state, metrics = train_step(state, gather_images(rows), labels[rows])
                step += 1
                log.add(step, metrics)
                validate_now = validate is not None and (step % validate_every == 0 or step == num_steps)
                save_now = validate_now or step % save_every == 0 or step == num_steps
                if save_now:
                    log.flush()  # only finite states are saved
                if validate is not None and validate_now:
                    description, best_step = validate_and_keep_best(validate)
                if save_now:
                    checkpoint.save(manager, state, description)
            log.flush()
            if step < num_steps and not is_stopped:
                log.say(
                    f"early stopping: the best checkpoint is that of step {best_step}; training ends after step {step}"
                )
            if is_stopped:
                checkpoint.save(manager, state, description)
                reason = received_signals[0] if received_signals else "a signal to another process"
                log.say(
                    f"{reason}: saved a checkpoint at step {step} of {num_steps} and stopped; run the same command "
                    "again to resume"
                )
            checkpoint.finish(manager)
    return not is_stopped


def count_steps(config: ConfigDict, steps_per_epoch: int) -> tuple[int, int]:
    """Returns the steps of the learning rate schedule, and the steps that are trained, fewer with `max_steps`."""
    schedule_steps = to_steps(config.epochs, steps_per_epoch)
    return schedule_steps, min(schedule_steps, config.max_steps) if config.max_steps else schedule_steps


def to_steps(epochs: float, steps_per_epoch: int) -> int:
    """Converts epochs to whole steps, at least one."""
    return max(1, round(epochs * steps_per_epoch))


def restore_or_create(
    manager: ocp.CheckpointManager,
    config: ConfigDict,
    description: Description,
    optimizer: Any,
    devices: list[jax.Device],
) -> tuple[TrainState, float | None]:
    """Returns the state of the latest checkpoint, or else a new one from `config.pretrained`, and the best mAP."""
    state = create_train_state(config, description.num_classes, optimizer)
    if manager.latest_step() is None and config.pretrained:
        params, batch_stats = load_into(
            state.params, state.batch_stats, config.pretrained, config.model.arch, description.data_fingerprint
        )
        state = dataclasses.replace(state, params=params, batch_stats=batch_stats)
        known = [name for name in sources(config.data.name) if name in description.pretrained_on]
        if config.data.validation_ids and known:
            tell(
                f"{config.pretrained} was trained on people of {', '.join(known)}: held-out identities may be "
                "among them, and their scores too high"
            )
    state = replicated(state, devices)
    if (restored := checkpoint.restore(manager, state)) is None:
        return state, None
    return restored[0], restored[1].best


def has_whole_checkpoint(directory: Path) -> bool:
    """Returns whether best/ has a whole checkpoint.

    If not, the caller forgets its score, and the next validation fills best/. Otherwise that score would reject all
    worse states, and the run would end without a best one.
    """
    try:
        return checkpoint.newest_whole(directory, lambda step, _: checkpoint.check_whole(directory, step)) is not None
    except ValueError as error:
        tell(f"{error}; otherwise the next validation fills it")
        return False


def keep_best(workdir: Workdir, state: TrainState, description: Description, validation_map: float) -> Description:
    """Saves `state` in best/ if its mAP is the highest so far; returns the description with the highest mAP."""
    if description.best is not None and validation_map <= description.best:
        return description
    with checkpoint.open_checkpoints(workdir.best, keep=1) as manager:
        if description.best is None:
            checkpoint.drop_later(manager, -1)  # damaged ones, which Orbax would read before it saves
        description = description._replace(best=validation_map)
        checkpoint.save(manager, state, description)
        checkpoint.finish(manager)
    return description


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Yields a list that gets the names of SIGTERM, SIGINT and SIGHUP (a terminal that closes) when they arrive.

    A second SIGINT interrupts as usual. SIGHUP stays ignored where it was, as under nohup.
    """
    received: list[str] = []

    def handle(number, frame):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    numbers = [signal.SIGTERM, signal.SIGINT]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    try:
        previous = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not the main thread, where signals cannot be caught
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _naming_kept_checkpoint(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Adds to the message of `Diverged` which checkpoint is kept, and what may help."""
    try:
        yield
    except Diverged as error:
        manager.wait_until_finished()
        step = manager.latest_step()
        kept = "no checkpoint had been saved yet" if step is None else f"the checkpoint of step {step} is kept"
        hint = "a lower config.optim.learning_rate or clip_norm may help (resume with --allow_config_change)"
        raise Diverged(f"{error}; {kept}; {hint}") from None
