"""Anybody's embeddings through the script: what it writes, and the one line that each broken file gets."""

import json

import numpy as np
import pytest
from tiny_sources import run_script

from mancs_jax.evaluation import metrics, reranking
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.ranking import hit_ranks


def arrays(**changed):
    rng = np.random.default_rng(0)
    pid = {"query": rng.integers(1, 5, 12), "gallery": rng.integers(-1, 5, 60), "multi_query": rng.integers(1, 5, 30)}
    found = {part: rng.standard_normal((len(pids), 6)).astype(np.float32) for part, pids in pid.items()}
    found |= {f"{part}_pid": pids for part, pids in pid.items()}
    found |= {f"{part}_camid": rng.integers(1, 4, len(pids)) for part, pids in pid.items()}
    found |= changed
    return {name: array for name, array in found.items() if array is not None}


def sets(found):
    """Query and gallery of the arrays."""
    return [Labelled(found[part], found[f"{part}_pid"], found[f"{part}_camid"]) for part in ("query", "gallery")]


WITHOUT_MORE = {"multi_query": None, "multi_query_pid": None, "multi_query_camid": None}


def run(*arguments):
    """Runs scripts/evaluate.py in this process; the line it exits with, "" for success."""
    return run_script("evaluate", *arguments)


def test_the_json_has_the_scores_at_its_top(tmp_path, capsys):
    found = arrays(**WITHOUT_MORE)
    np.savez(tmp_path / "f.npz", **found)
    assert run(f"--features={tmp_path / 'f.npz'}", f"--json={tmp_path / 'out.json'}") == ""
    result = json.loads((tmp_path / "out.json").read_text())
    expected = metrics.scores(hit_ranks(compare(*sets(found))))
    assert {name: result[name] for name in expected} == expected
    assert result["distance"] == "euclidean" and result["rerank"] is None and result["versions"]["jax"]
    assert len(result["fingerprint"]["query"]) == 32 and "multi_query_mean" not in result
    out = capsys.readouterr().out
    assert f"{100 * expected['mAP']:.2f} " in out and "no confidence intervals: with " in out  # of few people
    assert f"{expected['num_matched_queries']} of 12 queries have a match" in out


def test_options_and_multi_query(tmp_path):
    found = arrays()
    np.savez_compressed(tmp_path / "f.npz", **{name: array for name, array in found.items()})
    options = ["--distance=cosine", "--rerank", "--k1=7", "--k2=3", "--lambda=0.4"]
    assert run(f"--features={tmp_path / 'f.npz'}", *options, f"--json={tmp_path / 'out.json'}") == ""
    result = json.loads((tmp_path / "out.json").read_text())
    comparison = reranking.rerank(*sets(found), k1=7, k2=3, weight=0.4, distance="cosine")
    assert result["mAP"] == metrics.scores(hit_ranks(comparison))["mAP"]
    assert result["rerank"] == {"k1": 7, "k2": 3, "lambda": 0.4}
    assert result["multi_query_mean"]["pooling"] == "mean" and result["multi_query_max"]["rerank"]["k1"] == 7


def test_a_folder_of_npy_files_and_other_floats_score_the_same(tmp_path):
    found = arrays(**WITHOUT_MORE)
    np.savez(tmp_path / "f.npz", **found | {"query": found["query"].astype(np.float64)})
    for name, array in found.items():
        np.save(tmp_path / f"{name}.npy", array)
    scores = []
    for source in (tmp_path / "f.npz", tmp_path):
        assert run(f"--features={source}", f"--json={tmp_path / 'out.json'}") == ""
        scores.append(json.loads((tmp_path / "out.json").read_text())["cmc"])
    assert scores[0] == scores[1]


def nan(array):
    array = array.copy()
    array[3, 2] = np.nan
    return array


GOOD = arrays()
# What every comparison refuses is in test_comparison.py.
BROKEN = {
    "query embedding 3 has NaN or infinite values: check the model (1 of 12 are so)": {"query": nan(GOOD["query"])},
    "has no gallery_camid; it has gallery, gallery_pid": {"gallery_camid": None},
    "has no multi_query_pid; it has": {"multi_query_pid": None},
    "has no query, query_pid, query_camid": {"query": None, "query_pid": None, "query_camid": None},
    "gallery camids are bool: they must be integers": {"gallery_camid": GOOD["gallery_camid"] > 1},
    "multi-query embeddings are 4 wide, query embeddings 6": {"multi_query": GOOD["multi_query"][:, :4]},
    "gallery embeddings are float32 [60, 6, 1]": {"gallery": GOOD["gallery"][..., None]},
    "query embeddings are int64 [12, 6]": {"query": GOOD["query"].astype(int)},
    "query embeddings are float64 and lose too much as float32": {"query": GOOD["query"].astype(float) + 1e9},
    "gallery embeddings are float64, too large for float32: scale": {"gallery": GOOD["gallery"].astype(float) * 1e300},
    "is not a .npz file of plain arrays": {"query": np.array([None] * 12)},
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_file_gets_one_line(tmp_path, message):
    np.savez(tmp_path / "f.npz", **arrays(**BROKEN[message]))
    line = run(f"--features={tmp_path / 'f.npz'}", f"--json={tmp_path / 'out.json'}")
    assert line.startswith("evaluate: ") and message in line and "\n" not in line
    assert not (tmp_path / "out.json").exists()


def test_files_that_are_none(tmp_path):
    np.savez(tmp_path / "f.npz", **arrays())
    whole = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "single.npz", arrays()["query"])
    (tmp_path / "single.npz.npy").rename(tmp_path / "one.npz")
    for name in ("cut", "text", "empty", "one"):
        line = run(f"--features={tmp_path / name}.npz")
        assert "is not a .npz file of plain arrays, or is cut off" in line and "\n" not in line, name
    np.savez_compressed(tmp_path / "packed.npz", **arrays())
    packed = bytearray((tmp_path / "packed.npz").read_bytes())
    for place in range(40, len(packed), 97):  # whatever is damaged, it is one line or none
        packed[place] ^= 255
        (tmp_path / "packed.npz").write_bytes(packed)
        packed[place] ^= 255
        line = run(f"--features={tmp_path / 'packed'}.npz")
        assert "\n" not in line and (not line or line.startswith("evaluate: ")), place
    (tmp_path / "folder").mkdir()
    assert "it has no arrays" in run(f"--features={tmp_path / 'folder'}")
    for name, array in arrays(**WITHOUT_MORE).items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    (tmp_path / "folder" / "query.npy").write_bytes(b"\x93NUMPY")
    assert "query.npy is not a .npy file of numbers" in run(f"--features={tmp_path / 'folder'}")
    assert "does not exist" in run(f"--features={tmp_path / 'nothing.npz'}")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--k1=7", "--lambda=0.1"], "without --rerank there is no use for --k1, --lambda"),
        (["--rerank", "--k1=71"], "k1 is 71: it must be from 1 to"),
        (["--rerank", "--k2=30"], "k2 is 30: it must be from 1 to k1 + 1 = 21"),
        (["--rerank", "--lambda=2"], "lambda is 2.0: it must be from 0 to 1"),
        (["--flip", "--dataset=x"], "leave --dataset, --flip out"),
        (["--single_shot"], "leave --single_shot out"),
        (["--splits=3", "--query_camera=1"], "without --single_shot there is no use for --splits, --query_camera"),
        (["--workdir=w"], "give one of --workdir=DIRECTORY of a run, --network=NAME and --features=FILE.npz"),
        (["--json={tmp_path}/f.npz/out.json"], "f.npz"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    np.savez(tmp_path / "f.npz", **arrays(**WITHOUT_MORE))
    line = run(f"--features={tmp_path / 'f.npz'}", *(option.format(tmp_path=tmp_path) for option in options))
    assert message in line and "\n" not in line


def test_only_the_arrays_that_are_asked_for_are_read(tmp_path):
    found = arrays(**WITHOUT_MORE)
    beside = {"query_paths": np.array([{"path": "a.jpg"}], object), "model": np.array(["osnet", None], object)}
    np.savez(tmp_path / "f.npz", **found, **beside)
    assert run(f"--features={tmp_path / 'f.npz'}") == ""
    (tmp_path / "folder").mkdir()
    for name, array in (found | beside).items():
        np.save(tmp_path / "folder" / f"{name}.npy", array, allow_pickle=True)
    assert run(f"--features={tmp_path / 'folder'}") == ""
    np.savez(tmp_path / "other.npz", feats=found["query"], ids=found["query_pid"])
    line = run(f"--features={tmp_path / 'other.npz'}")
    assert line.endswith("has no query, query_pid, query_camid, gallery, gallery_pid, gallery_camid; it has feats, ids")


def embedded(**changed):
    """The arrays that `mancs embed` writes of a folder with query/ and bounding_box_test/."""
    found = arrays()
    parts = {"query": found["query_pid"], "bounding_box_test": found["gallery_pid"]}
    name = [f"{folder}/{i:04d}.jpg" for folder, pids in parts.items() for i in range(len(pids))]
    both = {
        field: np.concatenate([found[f"query{end}"], found[f"gallery{end}"]])
        for field, end in (("embedding", ""), ("pid", "_pid"), ("camid", "_camid"))
    }
    return both | {"name": np.array(name), "network": "0" * 32, "flip": False, "normalize": False} | changed


def test_a_file_of_embed_is_scored(tmp_path):
    both, found = embedded(), arrays(**WITHOUT_MORE)
    np.savez(tmp_path / "f.npz", **both)
    out, file = tmp_path / "out.json", f"--features={tmp_path / 'f.npz'}"
    expected = metrics.scores(hit_ranks(compare(*sets(found))))
    for queries in ("query", "./query", "query/"):
        assert run(file, f"--queries={queries}", f"--json={out}") == ""
        assert json.loads(out.read_text())["mAP"] == expected["mAP"]
    # Without --queries each image of a person is a query; the image itself is of its own camera, which never counts.
    assert run(file, f"--json={out}") == ""
    result, is_person = json.loads(out.read_text()), both["pid"] > 0
    gallery = Labelled(both["embedding"], both["pid"], both["camid"])
    ranks = hit_ranks(compare(Labelled(*(field[is_person] for field in gallery)), gallery))
    assert result["mAP"] == metrics.scores(ranks)["mAP"] and result["num_queries"] == is_person.sum()
    words = "has no images for the queries with --queries=nowhere; its folders are bounding_box_test, query"
    assert run(file, "--queries=nowhere").endswith(words)
    for field, wrong in (("name", both["name"][:5]), ("pid", both["pid"][:5]), ("name", both["pid"])):
        np.savez(tmp_path / "f.npz", **(both | {field: wrong}))
        line = run(file, "--queries=query")
        assert "is no whole file of mancs embed: embedding float32 [72, 6], name " in line and "\n" not in line
    np.savez(tmp_path / "f.npz", **{name: array for name, array in both.items() if name not in ("pid", "camid")})
    line = run(file)
    assert "f.npz has no pid and camid: it is a file of mancs embed without identities. Give them as --csv=F" in line
    assert "query_pid" not in line and line.endswith("or add pid and camid to the file, an integer for each image")
    np.savez(tmp_path / "f.npz", **found)
    assert run(file, "--queries=query").endswith("has arrays of queries already: leave --queries out")
    assert run("--workdir=w", "--queries=query").endswith("--queries goes with --features=FILE of mancs embed")


def test_person_0_in_the_names_is_told(tmp_path, capsys):
    both = embedded()
    np.savez(tmp_path / "f.npz", **both)
    file, number = f"--features={tmp_path / 'f.npz'}", np.sum(both["pid"] == 0)
    line = f"{number} gallery images have pid 0, which is no person: they count as distractors\n"
    for queries in ([], ["--queries=query"]):
        assert run(file, *queries) == "" and line in capsys.readouterr().out
    pid = np.where(np.arange(len(both["pid"])) == 3, 0, both["pid"])
    np.savez(tmp_path / "f.npz", **both | {"pid": pid})
    assert run(file, "--queries=query").endswith(
        "f.npz: 1 of the queries are of no person, as query/0003.jpg with pid 0: embed them without these images, or, "
        "if people are numbered from 0, add 1 to every pid above -1 in the names"
    )
    junk = np.where(np.arange(len(both["pid"])) == 3, -1, np.where(both["pid"] == 0, -1, both["pid"]))
    np.savez(tmp_path / "f.npz", **both | {"pid": junk})
    for queries in ([], ["--queries=query"]):  # junk below the queries is left out
        assert run(file, *queries) == "" and "distractors" not in capsys.readouterr().out
