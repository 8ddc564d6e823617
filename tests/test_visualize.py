"""The report of a scored network: by the distance that was asked for, with the scores that were written."""

import shutil

import numpy as np
import pytest
import tiny
from pages import data_of
from tiny_runs import write_data
from tiny_workdir import write_workdir

from mancs_jax import scoring, visualize
from mancs_jax.evaluation.analyses import Analyses
from mancs_jax.evaluation.protocols import Options
from mancs_jax.reporting.ranked_lists import ranked_lists
from mancs_jax.scoring import NETWORK, RERANKED


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    source = tiny.write_folder(tmp_path_factory.mktemp("source"))
    # Twelve people instead of four, so that scores have intervals.
    for file in [*(source / "query").iterdir(), *(source / "bounding_box_test").iterdir()]:
        pid, rest = file.name.split("_", 1)
        for more in (100, 200) if int(pid) > 0 else ():
            shutil.copy(file, file.with_name(f"{int(pid) + more:04d}_{rest}"))
    # Under shuffled names there are mistakes to be seen.
    files = sorted((source / "bounding_box_test").iterdir())
    contents = [file.read_bytes() for file in files]
    for file, i in zip(files, np.random.default_rng(0).permutation(len(files))):
        file.write_bytes(contents[i])
    root = tmp_path_factory.mktemp("data")
    write_data(root, source)
    return root


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    write_workdir(path)
    return path


def report(workdir, root, **options):
    task = scoring.Task(root=str(root), options=Options(**options))
    scored = scoring.evaluate(workdir, task, progress=False)
    page = visualize.write_report(workdir, scored, task).read_text()
    return scored, data_of(page), page


def test_a_page_has_the_sections_of_the_analyses(workdir, root):
    groups = {"kind": dict.fromkeys(range(1, 2000), "a")}
    task = scoring.Task(root=str(root), analyses=Analyses(open_set=True, groups=groups))
    page = visualize.write_report(workdir, scoring.evaluate(workdir, task, progress=False), task).read_text()
    for title in ("If the person is not in the gallery", "pairs of cameras", "groups of people"):
        assert page.count(f"{title}</h2>") == 1
    written = {path.name for path in (workdir / "results").iterdir()}
    assert {"open_set.svg", "cameras.svg"} < written
    assert "cameras_tpr.svg" not in written  # 1 in 1,000 is less than one of these pairs


def test_the_mean_of_the_lists_average_precisions_is_the_official_map(workdir, root):
    scored, data, page = report(workdir, root, rerank=True, k1=4, k2=2)
    assert list(data["lists"]) == ["by distance", "re-ranked"]
    for name, of in zip((NETWORK, RERANKED), data["lists"].values()):
        assert np.mean(of["ap"]) == pytest.approx(scored.results[name]["mAP"], abs=1e-4)
        assert scored.results[name]["mAP"] != pytest.approx(scored.results[name]["mAP_plain"], abs=1e-4)
    assert data["lists"]["by distance"]["distances"] != data["lists"]["re-ranked"]["distances"]
    result = scored.results[NETWORK]
    low, high = result["intervals"]["rank-1"]
    assert data["reading"][0].startswith(
        f"How to read {100 * result['cmc'][0]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    )
    assert data["table"][1][3] == f"{100 * result['cmc'][0]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    (section,) = data["sections"]
    assert section["title"] == "Decision thresholds" and section["rows"][1][0] == NETWORK
    assert f"of {result['num_gallery']:,} images of other people" in section["paragraphs"][1]
    for title in ("distances, shares", "CMC", "P(rank)"):
        assert title in page
    assert set(data["masks"]) == {"2", "3", "4"} and data["config"]["recipe"] == "tiny"
    names = {f"ranked_lists_{kind}{after}.png" for kind in ("best", "worst", "random") for after in ("", "_reranked")}
    assert names < {path.name for path in (workdir / "results").iterdir()}


@pytest.mark.parametrize(
    ("options", "words", "largest"),
    [({}, "Euclidean distance", None), ({"distance": "cosine"}, "cosine distance", 2.0)]
    + [({"normalize": True}, "Euclidean distance, embeddings of norm 1", 2.0)],
)
def test_lists_are_by_the_distance_that_was_asked_for(workdir, root, options, words, largest):
    scored, data, page = report(workdir, root, **options)
    assert f"(official), {words}, 20" in data["about"] and f">{words}</text>" in page
    query, gallery = (scored.embedded[part].embedding.astype(np.float64) for part in ("query", "gallery"))
    if options:
        query, gallery = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (query, gallery))
    expected = np.linalg.norm(query[:, None] - gallery, axis=2)
    expected = expected**2 / 2 if "distance" in options else expected
    index_of = {name: i for i, name in enumerate(scored.parts["gallery"].name.tolist())}
    found = data["lists"]["by distance"]
    for row, (answers, distances) in enumerate(zip(found["answers"], found["distances"])):
        images = [index_of[data["gallery"][answer]["name"]] for answer in answers]
        np.testing.assert_allclose(distances, expected[row, images], atol=2e-3, rtol=1e-4)
        assert largest is None or max(distances) <= largest


def test_what_it_cannot_show_gets_one_line(workdir, root):
    with pytest.raises(ValueError, match="shows no distractors"):
        visualize.write_report(workdir, None, scoring.Task(distractors="market1501_500k"))


def test_pictures_are_of_the_same_lists(workdir, root, monkeypatch):
    drawn = []
    monkeypatch.setattr(visualize, "ranked_lists", lambda *args: drawn.append(args) or ranked_lists(*args))
    _, data, _ = report(workdir, root)
    precision = np.array(data["lists"]["by distance"]["ap"])
    best, worst, random = (precision[rows] for _, _, _, rows, *_ in drawn)
    assert best.tolist() == sorted(best, reverse=True) and worst.tolist() == sorted(worst)
    assert best[0] == precision.max() and worst[0] == precision.min() and len(random) == len(best)
