"""The tables of docs/tracking.md, docs/export.md and docs/scaling.md: from results, and galleries by arithmetic."""

import sys

from result_files import EUCLIDEAN, REPOSITORY, markdown, per_cent, read

sys.path.append(str(REPOSITORY / "benchmarks"))
import scaling  # noqa: E402

SCENES = (2, 3, 4)
NETWORKS = ("market1501", "walkers")


def tracks() -> str:
    """docs/tracking.md: scores of examples/tracking/track.py, which `--json` writes."""
    rows = []
    for seed in SCENES:
        of = {name: read(f"tracks/seed{seed}_{name}") for name in NETWORKS}
        found = {"motion only": of[NETWORKS[0]]["motion alone"]}
        found |= {f"with `{name}`": of[name]["motion and embeddings"] for name in NETWORKS}
        for what, scores in found.items():
            scene = f"`--seed={seed}`" if what == "motion only" else ""
            number = f"{scores['num_found']} ({scores['num_tracks']})"
            rates = per_cent(scores["idf1"]), str(scores["switches"]), per_cent(scores["mota"])
            rows.append((scene, what, *rates, number))
    return markdown(["scene", "tracker", "IDF1", "identity switches", "MOTA", "tracks (ground truth)"], rows)


def exports() -> str:
    """docs/export.md: the pretrained model in every format."""
    rows = {
        "`market1501`, the weights": read(EUCLIDEAN)["Mancs"],
        "`market1501.jax`": read("exports/jax")["Mancs"],
        "`market1501.onnx`": read("exports/onnx")["Mancs"],
        "`half.onnx`, with `--input=float --dtype=float16`": read("exports/half")["Mancs"],
    }
    lines = [
        (name, per_cent(of["cmc"][0], 4), per_cent(of["mAP"], 5), per_cent(of["mAP_plain"], 5))
        for name, of in rows.items()
    ]
    return markdown(["`--network=`", "rank-1", "mAP (official)", "mAP (plain)"], lines)


def galleries() -> str:
    """docs/scaling.md: the memory and the search time of large galleries, by arithmetic."""
    return "\n".join(scaling.table([scaling.weigh(crops) for crops in scaling.GALLERIES])) + "\n"
