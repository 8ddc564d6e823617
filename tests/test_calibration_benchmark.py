"""The comparison of logistic and isotonic calibration, against loops, and to its end at a small size."""

import json

import numpy as np
import pytest

from mancs_jax.evaluation import calibration
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.labelled import Labelled

pytestmark = pytest.mark.quick


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("calibration")


def people(seed, number=40):
    """Query and gallery of people whose images are near each other."""
    rng = np.random.default_rng(seed)
    pid = np.repeat(np.arange(1, number + 1), 4)
    embedding = (rng.normal(size=(number, 6))[pid - 1] + 0.6 * rng.normal(size=(len(pid), 6))).astype(np.float32)
    camid = np.tile(np.arange(4), number)
    return [Labelled(embedding[of], pid[of], camid[of]) for of in (camid < 2, camid >= 2)]


def test_isotonic_regression_by_hand(benchmark):
    """Distances 1, 2 of one person and 2, 3 of two: with a pair of each kind at both ends, five posteriors fall."""
    query = Labelled(np.zeros((1, 1), np.float32), np.array([1]), np.array([1]))
    gallery = Labelled(np.float32([[1], [2], [-2], [3]]), np.array([1, 1, 2, 2]), np.array([2, 2, 2, 2]))
    knots = benchmark.isotonic(compare(query, gallery))
    # The pair at the near end is pooled with distance 1 (2 of 1 kind, 1 of the other), as is the far end with 3.
    expected = [[1, np.log(2)], [1, np.log(2)], [2, 0], [2, 0], [3, -np.log(2)], [3, -np.log(2)]]
    np.testing.assert_allclose(knots, expected, atol=1e-12)


def test_isotonic_ratios_fall_and_fit_their_own_pairs_best(benchmark):
    held_out = compare(*people(0))
    at, values = np.array(benchmark.isotonic(held_out)).T
    assert (np.diff(at) >= 0).all() and (np.diff(values) <= 0).all() and np.isfinite(values).all()
    own, line = (
        calibration.quality(held_out, knots) for knots in (benchmark.isotonic(held_out), calibration.fit(held_out))
    )
    assert own["min_cllr"] <= own["cllr"] <= line["cllr"]


def test_the_command_prints_a_table(benchmark, tmp_path, capsys):
    for name, seed in (("held_out", 0), ("test", 1)):
        query, gallery = people(seed)
        arrays = {"query": query, "gallery": gallery}
        np.savez(
            tmp_path / f"{name}.npz",
            **{part: of.embedding for part, of in arrays.items()},
            **{f"{part}_{label}": getattr(of, label) for part, of in arrays.items() for label in ("pid", "camid")},
        )
    files = [str(tmp_path / f"{name}.npz") for name in ("held_out", "test")]
    benchmark.main([*files, f"--json={tmp_path / 'out.json'}"])
    assert capsys.readouterr().out.startswith("| distance | mapping | Cllr | minimum Cllr | above the minimum % |")
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["distance"], row["mapping"]) for row in rows] == [
        (distance, mapping) for distance in ("euclidean", "cosine") for mapping in ("logistic", "isotonic")
    ]
    comparison = compare(*people(1))
    found = calibration.quality(comparison, calibration.fit(compare(*people(0))))
    assert rows[0]["Cllr"] == f"{found['cllr']:.4f}" and rows[0]["minimum Cllr"] == f"{found['min_cllr']:.4f}"
    assert rows[0]["above the minimum %"] == pytest.approx(100 * (found["cllr"] / found["min_cllr"] - 1))
    with pytest.raises(ValueError, match="too few pairs"):
        query, gallery = (Labelled(*(field[:3] for field in of)) for of in people(0))
        np.savez(
            tmp_path / "few.npz",
            query=query.embedding,
            gallery=gallery.embedding,
            query_pid=query.pid,
            query_camid=query.camid,
            gallery_pid=gallery.pid,
            gallery_camid=gallery.camid,
        )
        benchmark.main([str(tmp_path / "few.npz"), files[1]])
