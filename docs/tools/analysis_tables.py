"""Tables of open-set rates, calibration, pairs of cameras and groups of people."""

from typing import Any

from result_files import REPOSITORY, bracketed, markdown, per_cent, read

from mancs_jax.evaluation.results import significant

DISTANCES = {"euclidean": "analyses", "cosine": "analyses_cosine"}  # distance -> its file


def _result(distance: str) -> dict[str, Any]:
    return read(f"market1501_scratch/{DISTANCES[distance]}")["Mancs"]


def _card() -> dict[str, Any]:
    return read(str((REPOSITORY / "mancs_jax" / "networks" / "market1501").absolute()))["calibration"]


def _words(distance: str) -> str:
    return f"{distance.title() if distance == 'euclidean' else distance} distance"


def market1501_open_set() -> str:
    """docs/verify.md: FNIR at two FPIRs."""
    rows = []
    for distance in DISTANCES:
        for at in _result(distance)["open_set"]["at"]:
            ends = ", ".join(f"{end:.4g}" for end in at["distance_interval"])
            fnir = f"{per_cent(at['fnir'])} {bracketed(at['fnir_interval'])} %"
            rows.append((_words(distance), f"{100 * at['max_fpir']:g} %", f"{at['distance']:.4g} [{ends}]", fnir))
    return markdown(["`market1501`", "FPIR at most", "threshold", "FNIR: searches for enrolled people that miss"], rows)


def market1501_calibration() -> str:
    """docs/verify.md: Cllr on the people it was set on, and on others."""
    rows = []
    for distance in DISTANCES:
        of = _card()[distance]
        fitted, tested = "held-out identities (used to fit the mapping)", "query and gallery"
        for who, quality in ((fitted, of["set_on"]), (tested, of["measured_on"])):
            excess = f"{100 * (quality['cllr'] / quality['min_cllr'] - 1):.1f} %"
            pairs = f"{quality['num_positive_pairs']:,} / {quality['num_negative_pairs']:,}"
            rows.append((_words(distance), who, f"{quality['cllr']:.4f}", f"{quality['min_cllr']:.4f}", excess, pairs))
    head = [
        "`market1501`",
        "people of Market-1501",
        "Cllr",
        "minimum Cllr",
        "above the minimum",
        "positive / negative pairs",
    ]
    return markdown(head, rows)


def market1501_reliability() -> str:
    """docs/results/market1501_scratch.md: stated and observed likelihood ratios."""
    rows = []
    for row in _card()["euclidean"]["measured_on"]["reliability"]:
        low, high = (significant(10 ** (row["log10_ratio"] + side), 2) for side in (-0.25, 0.25))
        observed = "-" if row["observed"] is None else significant(10 ** row["observed"], 2)
        rows.append((f"{low} to {high}", observed, f"{row['positive']:,}", f"{row['negative']:,}"))
    return markdown(["stated likelihood ratio", "observed", "positive pairs", "negative pairs"], rows)


def market1501_cameras(rate: str = "rank1") -> str:
    """docs/model_card.md: a rate, "rank1" or "tpr", for each pair of cameras."""
    cameras = _result("euclidean")["cameras"]
    rows = []
    count = {"rank1": "queries", "tpr": "pairs"}[rate]
    for camera, *of in zip(
        cameras["query_cameras"], cameras[rate], cameras[f"{rate}_interval"], cameras[count], strict=True
    ):
        cells = [
            "" if share is None else f"{per_cent(share)} {bracketed(ends)} ({number:,})"
            for share, ends, number in zip(*of, strict=True)
        ]
        rows.append((f"camera {camera}", *cells))
    return markdown(["queries of", *(f"in images of camera {camera}" for camera in cameras["gallery_cameras"])], rows)


def market1501_groups() -> str:
    """docs/model_card.md: rates for each group of people."""
    rows = []
    for row in _result("euclidean")["groups"]["rows"]:
        name = f"{row['attribute']}: {row['value']}" if row["value"] else "all people"
        rates = [
            "-"
            if row[rate] is None
            else f"{per_cent(row[rate], digits)} [{', '.join(per_cent(e, digits) for e in ends)}]"
            for rate, digits in (("rank1", 1), ("tpr", 1), ("fpr", 2))
            for ends in [row[f"{rate}_interval"] or ()]
        ]
        rows.append((name, f"{row['identities']:,}", f"{row['queries']:,}", *rates))
    return markdown(["group", "people", "queries", "rank-1 (%)", "TPR (%)", "FPR (%)"], rows)
