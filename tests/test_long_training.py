"""Fields for long trainings, off in the paper's recipes: SGD with momentum, label smoothing, images of half size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_step import losses, record_sizes, run, tiny_config, train_drawn

from mancs_jax.config import checks, recipes
from mancs_jax.losses.identity import focal_loss
from mancs_jax.training.state import create_optimizer

FIELDS = {
    "optim.name": "sgd",
    "optim.learning_rate": 0.01,
    "loss.label_smoothing": 0.1,
    "augment.half_size_epochs": 1.0,
}


def with_fields(*names: str):
    config = tiny_config()
    config.update_from_flattened_dict({name: FIELDS[name] for name in names or FIELDS})
    return config


def test_sgd_follows_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(6, 4, 3)).astype(np.float32)
    config = tiny_config()
    config.optim.name, config.optim.momentum = "sgd", 0.8
    config.optim.weight_decay, config.optim.clip_norm = 0.05, 0.0
    optimizer = create_optimizer(config, lambda step: 0.1)
    params = {"backbone": {"kernel": jnp.asarray(start)}}
    state = optimizer.init(params)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    peer = torch.optim.SGD([theirs], lr=0.1, momentum=0.8, weight_decay=0.05, nesterov=True)
    for gradient in gradients:
        updates, state = optimizer.update({"backbone": {"kernel": jnp.asarray(gradient)}}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        theirs.grad = torch.from_numpy(gradient.copy())
        peer.step()
    np.testing.assert_allclose(params["backbone"]["kernel"], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_label_smoothing_is_a_smoothed_target(smoothing):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(5, 7)).astype(np.float32), rng.integers(0, 7, 5)
    options = {"probability": "softmax", "label_smoothing": smoothing}
    peer = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), label_smoothing=smoothing
    )
    np.testing.assert_allclose(focal_loss(logits, labels, gamma=0.0, **options), peer.item(), rtol=1e-5)
    # With a focal weight, in float64: sum over classes of target * (1 - p)^2 * -log p.
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    target = (1 - smoothing) * np.eye(7)[labels] + smoothing / 7
    expected = np.mean(np.sum(target * (1 - p) ** 2 * -np.log(p), axis=1))
    np.testing.assert_allclose(focal_loss(logits, labels, gamma=2.0, **options), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["optim.name", "loss.label_smoothing"])
def test_each_field_changes_the_run(name):
    configs = tiny_config(), with_fields(name)
    for config in configs:
        config.model.head_init = 0.1  # logits that differ from each other
    plain, other = (run(config, 1, steps=3) for config in configs)
    assert np.abs(losses(other) - losses(plain)).max() > 1e-3


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(rows, sizes that the network saw) of five steps with all fields, three of them an epoch."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = record_sizes(monkeypatch)
        return train_drawn(long_run(5), tmp_path_factory.mktemp("whole")), seen


def long_run(steps: int):
    config = with_fields()
    config.pretrained, config.epochs, config.max_steps = "", 10.0, steps
    return config


def test_first_epochs_see_half_the_size(whole):
    """Without the field: `test_nothing_is_compiled_after_the_first_step`."""
    assert whole[1] == {(32, 16), (64, 32)}


def test_a_run_goes_on_as_if_it_had_not_stopped(whole, tmp_path):
    """Stopped at step 2, before the images grow, and at step 4, after."""
    for steps in (2, 4, 5):
        parts = train_drawn(long_run(steps), tmp_path)
    assert parts == whole[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim.name": "sgdd"}, 'may be adam, sgd. Did you mean "sgd"'),
        ({"optim.momentum": 1.0}, "below 1"),
        ({"loss.label_smoothing": 1.0}, "below 1"),
        ({"loss.label_smoothing": 0.1, "loss.probability": "sigmoid"}, 'smoothing needs "softmax"'),
        ({"augment.half_size_epochs": 1.0, "data.image_size": (96, 64)}, "each side has to be a multiple of 64"),
        ({"augment.half_size_epochs": -1.0}, "at least 0"),
    ],
)
def test_values_that_cannot_work_are_refused(changes, words):
    config = recipes.market().unlock()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=words):
        checks.validate(config, num_devices=1)
