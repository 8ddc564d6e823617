"""Embeddings that some other program made: read from a file, checked, evaluated."""

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import numpy as np

from mancs_jax.common.environment import environment
from mancs_jax.common.fingerprint import fingerprint as digest_of
from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of
from mancs_jax.data.sources.csv_table import Listed, read_table
from mancs_jax.data.sources.labels import Label, names_of, parse_labels
from mancs_jax.evaluation import protocols
from mancs_jax.evaluation.analyses import NONE, Analyses, analyse, check_analyses
from mancs_jax.evaluation.calibration import calibrated
from mancs_jax.evaluation.comparison import kept
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.per_query import PerQuery
from mancs_jax.evaluation.protocols import Options

LOSS = 1e-3  # of the spread of embeddings, that may be lost in rounding them to float32
PARTS = ("query", "gallery", "multi_query")  # the last is optional
SINGLE_QUERY = "single query"  # name of the row
THESE = "the evaluated pairs themselves: on other people, the mapping fits less well than its Cllr says"
LABELS = ("", "_pid", "_camid")  # ends of the names of a part's arrays
EMBEDDED = ("embedding", "name", "pid", "camid")  # arrays of `mancs embed`, where people and cameras are known
MADE_WITH = ("network", "flip", "normalize")  # further ones
SPLIT = "split"  # an array of `mancs embed` with a CSV that has splits
PART_OF = {"query": "query", "gallery": "gallery", "gt_bbox": "multi_query"}  # by their splits
# What NumPy and zipfile raise for files that are damaged, encrypted, or something else.
UNREADABLE: tuple[type[Exception], ...] = (ValueError, OSError, EOFError, AttributeError, RuntimeError, MemoryError)
UNREADABLE += (OverflowError, TypeError, KeyError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


def load_features(path: str | Path, queries: str = "", csv: str | Path | None = None) -> dict[str, Labelled]:
    """Reads embeddings and labels.

    Args:
      path: a .npz file with arrays `query` and `gallery` (floats [N, D]) and `query_pid`, `query_camid`, `gallery_pid`,
        `gallery_camid` (integers [N]), and for multi-query `multi_query`, `multi_query_pid`, `multi_query_camid`; or a
        folder with a .npy file for each of these, memory-mapped: float32 that is evaluated single-query without
        re-ranking or normalising may be larger than memory. Or a file of `mancs embed` that knows people and cameras:
        its splits are taken where it has query and gallery; else each image with a person is a query, and all images
        are the gallery.
      queries: of a file of `mancs embed`, the folder whose images are the queries; the others are the gallery.
      csv: of a file of `mancs embed`, the people and cameras of its images, see `data.sources.labels`; images that it
        does not list are left out.

    Returns:
      "query", "gallery" and, where it is there, "multi_query"; embeddings float32.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: one line: no such file, arrays missing, of a wrong type or of lengths that do not fit.
    """
    path = local_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a .npz file, or a folder of .npy files")
    with _opened(path) as (present, read):
        known = set(EMBEDDED[:2] if csv else EMBEDDED)
        if known <= set(present) and "query" not in present:
            embedded = {name: read(name) for name in (*EMBEDDED, SPLIT) if name in present}
            if csv:
                embedded = _labelled_by(embedded, path, csv)
            arrays = _by_splits(embedded, queries) or _split(embedded, queries, path)
        elif queries or csv:
            flag = "--queries" if queries else "--csv"
            raise ValueError(f"{path} has arrays of queries already: leave {flag} out")
        else:
            wanted = PARTS if any(f"{PARTS[2]}{label}" in present for label in LABELS) else PARTS[:2]
            names = [f"{part}{label}" for part in wanted for label in LABELS]
            if missing := [name for name in names if name not in present]:
                raise ValueError(f"{path} has no {_what_is_missing(missing, present)}")
            arrays = {name: read(name) for name in names}
    features = {}
    for part in [part for part in PARTS if part in arrays]:
        try:
            embedding = _float32(part, arrays[part])
            features[part] = Labelled.checked(part, embedding, arrays[f"{part}_pid"], arrays[f"{part}_camid"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return features


def _what_is_missing(missing: Sequence[str], present: Sequence[str]) -> str:
    """Names the missing arrays, and says what the file has instead."""
    if {"embedding", "name"} <= set(present):
        labels = " and ".join(name for name in EMBEDDED if name not in present)
        return (
            f"{labels}: it is a file of mancs embed without identities. Give them as --csv=FILE with the header "
            f"path,pid,camid, name the images as 0002_c1_... (person, camera) and embed them again, or add {labels} to "
            "the file, an integer for each image"
        )
    names = [name if name.isprintable() else repr(name) for name in sorted(present)]
    return f"{', '.join(missing)}; it has {', '.join(names) or 'no arrays'}"


def _labelled_by(embedded: dict[str, np.ndarray], path: Path, csv: str | Path) -> dict[str, np.ndarray]:
    """The images of `mancs embed` that a CSV lists, with its labels."""
    names = embedded["name"].tolist() if embedded["name"].dtype.kind == "U" else []
    if len(embedded["embedding"]) != len(names):
        raise ValueError(f"{path} is no whole file of mancs embed: embedding and name do not go together")
    listed = Listed(path, frozenset(names))
    text = read_table(listed, csv)
    labels = {label.file: label for label in parse_labels(text, listed, str(csv), skip_missing=True)}
    rows = [row for row, name in enumerate(names) if name in labels]
    if not rows:
        raise ValueError(
            f"{csv} lists no image of {path}: its paths have to be relative to the folder that was embedded, as "
            f"{names[0] if names else 'a.jpg'}"
        )
    row_labels = [labels[names[row]] for row in rows]
    pid, camid = np.array([(label.pid, label.camid) for label in row_labels], np.int32).T
    splits = np.array([label.split for label in row_labels])
    fields = {"embedding": embedded["embedding"][rows], "name": embedded["name"][rows], "pid": pid, "camid": camid}
    return fields | ({SPLIT: splits} if splits.any() else {})


def _by_splits(embedded: dict[str, np.ndarray], queries: str) -> dict[str, np.ndarray]:
    """The arrays of the parts by the splits of a CSV; empty where it has no query and gallery, or `queries` decide."""
    splits = embedded.get(SPLIT)
    if queries or splits is None or not {"query", "gallery"} <= set(splits.tolist()):
        return {}
    parts = {PART_OF[split]: splits == split for split in PART_OF if split in splits}
    fields = list(zip(LABELS, ("embedding", "pid", "camid"), strict=True))
    return {f"{part}{label}": embedded[field][rows] for part, rows in parts.items() for label, field in fields}


def _split(embedded: dict[str, np.ndarray], queries: str, path: Path) -> dict[str, np.ndarray]:
    """The arrays of queries and gallery out of those of an embedded folder."""
    shapes = [embedded[field].shape[:1] for field in EMBEDDED]
    if embedded["name"].dtype.kind != "U" or len(set(shapes)) > 1 or embedded["pid"].ndim != 1:
        forms = ", ".join(f"{field} {embedded[field].dtype} {list(embedded[field].shape)}" for field in EMBEDDED)
        raise ValueError(f"{path} is no whole file of mancs embed: {forms} do not go together")
    pid, names = embedded["pid"], embedded["name"].tolist()
    is_gallery = np.ones(len(pid), bool)
    is_query = np.asarray(pid) > 0
    if queries:
        folder = PurePosixPath(queries)  # as names of the file are, without "./" and a slash at the end
        is_below = np.array([name.startswith(f"{folder}/") for name in names])
        if (nobody := np.flatnonzero(is_below & (np.asarray(pid) == 0))).size:  # junk, of pid -1, is only left out
            raise ValueError(
                f"{path}: {len(nobody):,} of the queries are of no person, as {names[nobody[0]]} with pid "
                f"{pid[nobody[0]]}: embed them without these images, or, if people are numbered from 0, add 1 to every "
                "pid above -1 in the names"
            )
        is_query, is_gallery = is_below & is_query, ~is_below
    for part, chosen in (("queries", is_query), ("gallery", is_gallery)):
        if not chosen.any():
            folders = sorted({name.rpartition("/")[0] for name in names} - {""})
            hint = f"; its folders are {', '.join(folders[:8])}" if folders else ""
            raise ValueError(
                f"{path} has no images for the {part}{f' with --queries={queries}' if queries else ''}{hint}"
            )
    fields = zip(LABELS, ("embedding", "pid", "camid"), strict=True)
    return {
        f"{part}{label}": embedded[field][chosen]
        for label, field in fields
        for part, chosen in (("query", is_query), ("gallery", is_gallery))
    }


def _float32(part: str, embedding: np.ndarray) -> np.ndarray:
    """Other floats as float32, where that loses nothing that matters for distances."""
    if embedding.dtype.kind != "f" or embedding.dtype == np.float32 or not embedding.size:
        return embedding
    with np.errstate(over="ignore"):
        rounded = embedding.astype(np.float32)
    if not np.isfinite(embedding).all():
        return rounded  # which is refused as it is
    if not np.isfinite(rounded).all():
        raise ValueError(f"{part} embeddings are {embedding.dtype}, too large for float32: scale them")
    if np.abs(rounded - embedding).max() > LOSS * embedding.std():
        raise ValueError(
            f"{part} embeddings are {embedding.dtype} and lose too much as float32: subtract their mean, or scale them"
        )
    return rounded


def evaluate_file(
    path: str | Path,
    options: Options = protocols.DEFAULT,
    *,
    queries: str = "",
    csv: str | Path | None = None,
    analyses: Analyses = NONE,
    progress: bool = True,
) -> tuple[dict[str, Any], dict[str, PerQuery]]:
    """Evaluates embeddings of any origin, see `load_features` for the file and `evaluate_features` for the result.

    Raises:
      FileNotFoundError, ValueError: one line: the file is not there, or what is wrong with it or the options.
    """
    features, names = load_features(path, queries, csv), _names(path, csv)
    people = {int(pid): name for pid, name in names.get("names", {}).get("people", {}).items()}
    result, queries_by_row = evaluate_features(features, options, analyses.by_pid(people), progress=progress)
    result |= {"features": Path(path).name} | _made_with(path) | names | environment(jax.local_devices())
    return result, queries_by_row


def _made_with(path: str | Path) -> dict[str, Any]:
    """How `mancs embed` made a file, for the thresholds that belong to such embeddings; {} for other files."""
    with _opened(local_path(path)) as (present, read):
        if not set(MADE_WITH) <= set(present):
            return {}
        values = {name: read(name) for name in MADE_WITH}
    return {"embedded": {name: value.item() for name, value in values.items() if value.ndim == 0}}


def _names(path: str | Path, csv: str | Path | None) -> dict[str, Any]:
    """Names of people and cameras, where a CSV gave them: `names`, see `labels.names_of`."""
    with _opened(local_path(path)) as (present, read):
        if csv:
            listed = Listed(local_path(path), frozenset(read("name").tolist()))
            names = names_of(parse_labels(read_table(listed, csv), listed, str(csv), skip_missing=True))
        elif {"pid", "camid", "person", "camera"} <= set(present):
            columns = (read(name).tolist() for name in ("name", "pid", "camid", "person", "camera"))
            names = names_of(
                [
                    Label(name, name, pid, camid, person, camera, "")
                    for name, pid, camid, person, camera in zip(*columns, strict=True)
                ]
            )
        else:
            return {}
    return {"names": names} if names else {}


def evaluate_features(
    features: dict[str, Labelled], options: Options, analyses: Analyses = NONE, *, progress: bool = False
) -> tuple[dict[str, Any], dict[str, PerQuery]]:
    """Evaluates the parts of `load_features`.

    Returns:
      The single-query result, with the multi-query results under "multi_query_mean" and "multi_query_max" where the
      file has these images; and the scores of each query under the same names and SINGLE_QUERY.
    """
    query, gallery = features["query"], features["gallery"]
    if options.rerank and (asked := analyses.named()):
        raise ValueError(f"{', '.join(asked)}: re-ranked distances change with the gallery; leave --rerank out")
    check_analyses(analyses, query.pid)
    comparison = protocols.compared(query, gallery, options, progress=progress)
    comparison = comparison if options.rerank else kept(comparison)  # for the hits and for the pairs
    card = {"calibration": calibrated({options.distance: comparison}, THESE)} if analyses.calibrate else None
    if card and card["calibration"][options.distance] is None:
        raise ValueError(
            "--calibrate: too few pairs, or pairs of the same person and of others do not overlap; embed images of "
            "more people, or leave --calibrate out"
        )
    single = protocols.evaluate_single_query(query, gallery, options, comparison=comparison, progress=progress)
    if not options.rerank:
        single = analyse(comparison, single, analyses, card)
    evaluated = {SINGLE_QUERY: single}
    if "multi_query" in features:
        for pooling in protocols.POOLINGS:
            evaluated[f"multi_query_{pooling}"] = protocols.evaluate_multi_query(
                query, gallery, features["multi_query"], pooling, options, progress=progress
            )
    results = {name: of.result for name, of in evaluated.items()}
    result = results.pop(SINGLE_QUERY) | results
    result |= {"fingerprint": {part: fingerprint(embedded) for part, embedded in features.items()}}
    return result, {name: of.queries for name, of in evaluated.items()}


def fingerprint(embedded: Labelled) -> str:
    """Returns 32 hex digits that depend on every embedding and label."""
    fields = zip(embedded, ("<f4", "<i4", "<i4"), strict=True)
    return digest_of(repr(embedded.embedding.shape), *(np.ascontiguousarray(field, dtype) for field, dtype in fields))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], np.ndarray]]]:
    """Gives the names of the arrays in a file or folder, and a function that reads one: no other is looked at."""
    if path.is_dir():
        yield sorted(file.stem for file in path.glob("*.npy")), lambda name: _mapped(path / f"{name}.npy")
        return
    with ExitStack() as stack:
        with _naming_damage(path):
            stream = stack.enter_context(path.open("rb"))
            with zipfile.ZipFile(stream):  # says what is wrong; a lone array is no zip
                stream.seek(0)
            file = np.load(stream, allow_pickle=False)

        def read(name):
            with _naming_damage(path):
                if not isinstance(array := file[name], np.ndarray):
                    raise ValueError(f"{name} is no array")
                return array

        yield file.files, read


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a .npz file of plain arrays, or is cut off ({reason_of(error)})") from error


def _mapped(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise ValueError(f"{file} is not a .npy file of numbers, or is cut off ({reason_of(error)})") from error


def score_embeddings(
    query: np.ndarray,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    *,
    distance: str = "euclidean",
    normalize: bool = False,
    rerank: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluates embeddings of any model by the official single-query rules.

    Args:
      query: float32 [Q, D].
      query_pid: integer [Q], each above 0.
      query_camid: integer [Q].
      gallery: float32 [G, D].
      gallery_pid: integer [G]; -1 is junk, 0 a distractor.
      gallery_camid: integer [G].
      distance: "euclidean" or "cosine".
      normalize: divide each embedding by its norm.
      rerank: re-rank by k-reciprocal encoding, with the values of its authors.
      progress: show a bar.

    Returns:
      mAP, mAP_plain, mINP, cmc, intervals and counts, see `protocols.evaluate_single_query`; scores are fractions in
      [0, 1].

    Raises:
      ValueError: one line that names the wrong array or option.
    """
    options = Options(distance=distance, normalize=normalize, rerank=rerank)
    sets = Labelled(query, query_pid, query_camid), Labelled(gallery, gallery_pid, gallery_camid)
    return protocols.single_query(*sets, options, progress=progress)
