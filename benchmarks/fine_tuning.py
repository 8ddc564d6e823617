"""Single-shot scores before and after fine-tuning on few identities, on the other identities of the same data set.

    python benchmarks/fine_tuning.py --dataset=cuhk01 --identities 20 50 100 200

The recipe is `finetune`. Each row is a number of training identities, of which a fifth is held out for early stopping.
Random subsets of the data set's training identities are drawn with the seeds 0, 1, ...; the remaining identities are
scored. A workdir that is complete is not trained again.
"""

import argparse
import ast
from pathlib import Path

import numpy as np
from measure import report
from ml_collections import ConfigDict

from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.config.by_name import get_config
from mancs_jax.data import arrays
from mancs_jax.data.arrays import Split
from mancs_jax.evaluation import single_shot
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.single_shot import SingleShot
from mancs_jax.inference.forward import embed
from mancs_jax.inference.trained import load_trained
from mancs_jax.run import train_and_evaluate

HELD_OUT = 5  # one in so many training identities


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each number of identities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="prepared data set")
    parser.add_argument("--root", default="data", help="directory of the data sets")
    parser.add_argument("--network", default="market1501", help="pretrained model to start from")
    parser.add_argument("--identities", type=int, nargs="+", default=[20, 50, 100, 200], help="to train on")
    parser.add_argument("--subsets", type=int, default=3, help="random subsets for each number of identities")
    parser.add_argument("--scored", type=int, default=0, help="identities of a single-shot split, 0: all others")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="other fields of the recipe")
    parser.add_argument("--workdirs", type=Path, default=Path("workdirs/fine_tuning"), help="folder of the runs")
    parser.add_argument("--json", type=Path, help="file for the figures")
    flags = parser.parse_args(arguments)

    keep_compiled_programs()
    pretrained = load_trained(flags.network).network
    split = arrays.load_split(flags.dataset, flags.root, "train", pretrained.config.data.image_size)
    before = embed(pretrained, split.image, progress=True)
    rows = []
    for number in flags.identities:
        scores = []
        for seed in range(flags.subsets):
            config = recipe(flags, split, number, seed)
            workdir = flags.workdirs / f"{flags.dataset}_{number}_{seed}"
            if train_and_evaluate(config, workdir, report=False) is None:
                return
            trained = load_trained(workdir).network
            others = ~np.isin(split.pid, arrays.leave_out(split, config.data.unused_ids, seed).pid)
            scores.append(
                [
                    mean_scores(embedding, split, others, flags.scored)
                    for embedding in (before[others], embed(trained, split.image[others], progress=True))
                ]
            )
        for name, (first, second) in zip(("rank-1", "plain mAP"), np.transpose(scores, (2, 1, 0)), strict=True):
            gain = second - first
            rows.append(
                {
                    "training identities": number,
                    "score": name,
                    "before": round(float(first.mean()), 1),
                    "after": round(float(second.mean()), 1),
                    "gain": round(float(gain.mean()), 1),
                    "lowest gain": round(float(gain.min()), 1),
                    "subsets": len(gain),
                }
            )
    report(rows, flags.json)


def recipe(flags: argparse.Namespace, split: Split, number: int, seed: int) -> ConfigDict:
    """The recipe `finetune` on `number` of the identities of a split."""
    config = get_config("finetune").unlock()
    config.pretrained, config.seed = flags.network, seed
    config.data.name, config.data.root = flags.dataset, flags.root
    config.data.unused_ids = len(np.unique(split.pid)) - number
    config.data.validation_ids = number // HELD_OUT
    for field in flags.set:
        name, _, value = field.partition("=")
        config.update_from_flattened_dict({name: ast.literal_eval(value)})
    return config.lock()


def mean_scores(embedding: np.ndarray, split: Split, rows: np.ndarray, identities: int) -> tuple[float, float]:
    """(rank-1, plain mAP) in per cent, means over ten splits."""
    images = Labelled(embedding, split.pid[rows], split.camid[rows])
    mean = single_shot.evaluate(images, SingleShot(identities=identities), Options(distance="cosine")).result["mean"]
    return 100 * mean["rank-1"], 100 * mean["mAP_plain"]


if __name__ == "__main__":
    main()
