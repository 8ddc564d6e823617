"""A folder of images as a file of embeddings, and ranked lists out of it."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Shaped, UInt8

from mancs_jax.common.atomic_write import atomic_write, is_opened
from mancs_jax.common.image_suffixes import SUFFIXES
from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of
from mancs_jax.common.screen import bar, escaped
from mancs_jax.data import images
from mancs_jax.data.sources.csv_table import read_table
from mancs_jax.data.sources.labels import Camera, Label, parse_labels
from mancs_jax.data.sources.source import is_skipped, name_faults, name_some, open_source
from mancs_jax.evaluation.features import UNREADABLE
from mancs_jax.evaluation.ranking import Found
from mancs_jax.inference.embedder import Embedder

LABELS = re.compile(r"(-1|\d{1,9})_c(\d{1,9})(?!\d)")  # how names such as 0002_c1s1_000451_03.jpg begin
SAME = 1e-3  # of the largest number: embeddings of one image in batches of other sizes differ by less
FIELDS = ("embedding", "name", "network", "flip", "normalize")
GREY = 200  # of the place of an image that cannot be read
DIGITS = 8  # of the 32 of a network, in messages
JUNK = "-1"  # as a person: a bad box, which may show any person
# Field of a gallery's file -> kinds of dtype, number of dimensions, both in words.
FORMS = {
    "embedding": ("f", 2, "floats [images, width]"),
    "name": ("U", 1, "text [images]"),
    "network": ("U", 0, "a text"),
    "flip": ("b", 0, "True or False"),
    "normalize": ("b", 0, "True or False"),
    "pid": ("iu", 1, "whole numbers [images]"),
    "camid": ("iu", 1, "whole numbers [images]"),
    "person": ("U", 1, "text [images]"),
    "camera": ("U", 1, "text [images]"),
    "split": ("U", 1, "text [images]"),
}


class Gallery(NamedTuple):
    """Embeddings of a folder of images, and how they were made."""

    embedding: Float[np.ndarray, "N D"]
    name: Shaped[np.ndarray, " N"]  # str, paths relative to the folder
    network: str  # see `Embedder`
    flip: bool
    normalize: bool
    pid: Integer[np.ndarray, " N"] | None = None  # where all names tell it, or a CSV
    camid: Integer[np.ndarray, " N"] | None = None  # likewise
    person: Shaped[np.ndarray, " N"] | None = None  # str, as a CSV names the people
    camera: Shaped[np.ndarray, " N"] | None = None  # str, likewise; "" where it has no cameras
    split: Shaped[np.ndarray, " N"] | None = None  # str, likewise

    def shown(self, i: int) -> tuple[str, str] | None:
        """(person, camera) of an image in words, the camera "" where it is not known; None without labels."""
        if self.pid is None or self.camid is None:
            return None
        person = str(self.pid[i] if self.person is None else self.person[i])
        return person, str(self.camid[i] if self.camera is None else self.camera[i])


def embed_folder(
    folder: str | Path,
    embedder: Embedder,
    names: Sequence[str] | None = None,
    *,
    camera: Camera | None = None,
    progress: bool = True,
) -> Gallery:
    """Embeds images of a folder and its subfolders.

    Args:
      folder: of the images.
      embedder: the network.
      names: paths below the folder, as `find_images`, which is asked where this is None.
      camera: of all images, see `cameras_of`.
      progress: whether a bar is shown.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no images in it, or one that cannot be decoded; `embed_whole` leaves such ones out.
    """
    folder = local_path(folder).absolute()  # names below "." that begin with ~ are no home directories
    names = find_images(folder)[0] if names is None else names
    cameras = cameras_of(names, embedder, camera)
    embedding = embedder([folder / name for name in names], camera=cameras, progress=progress)
    return create_gallery(embedder, embedding, names)


def create_gallery(
    embedder: Embedder, embedding: np.ndarray, names: Sequence[str], labels: Mapping[str, Label] | None = None
) -> Gallery:
    """Puts embeddings, float32 [N, D], and their names together, with labels: those of a CSV by the names (see
    `read_labels`), or else those that the names tell, if all do."""
    gallery = Gallery(embedding, np.array(names), embedder.network, embedder.flip, embedder.normalize)
    if labels is not None:
        row_labels = [labels[name] for name in names]
        pid, camid = np.array([(of.pid, of.camid) for of in row_labels], np.int32).T
        person, camera, split = (
            np.array(texts) for texts in zip(*((of.person, of.camera, of.split) for of in row_labels), strict=True)
        )
        return gallery._replace(
            pid=pid, camid=camid, person=person, camera=camera, split=split if split.any() else None
        )
    told = [labels_of(name) for name in names]
    pid, camid = (None, None) if None in told else np.array(told, np.int32).T
    return gallery._replace(pid=pid, camid=camid)


def read_labels(folder: str | Path, table: str | Path, *, skip_missing: bool = False) -> dict[str, Label]:
    """Reads the CSV of a folder's images, see `data.sources.labels`.

    Args:
      folder: of the images; paths of the CSV are relative to it, or begin with an end of its own path.
      table: the CSV, on disk or in the folder, with the header `path,pid,camid,split`, whose columns camid and split
        may be left out.
      skip_missing: leave out images that are not in the folder, which else are an error.

    Returns:
      Path of an image below the folder -> its label.

    Raises:
      FileNotFoundError: no such folder or CSV.
      ValueError: one line: a line of the CSV is wrong, or it lists no image of the folder.
    """
    with open_source(folder) as source:
        labels = parse_labels(read_table(source, table), source, str(table), skip_missing=skip_missing)
        if not labels:
            raise ValueError(f"{table} lists no image of {folder}: its paths have to be relative to this folder")
        return {f"{source.top}/{label.file}" if source.top else label.file: label for label in labels}


def embed_whole(
    folder: str | Path,
    embedder: Embedder,
    names: Sequence[str],
    *,
    camera: Camera | Mapping[str, Camera] | None = None,
    progress: bool = True,
) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Embeds the images of a folder that can be read; each is read once, a batch at a time.

    Args:
      folder: of the images.
      embedder: the network.
      names: paths below the folder, as `find_images` gives them.
      camera: of all images, or of each by its name, see `cameras_of`.
      progress: whether a bar is shown.

    Returns:
      (float32 [M, D], the M names, name and fault of each of the others).

    Raises:
      ValueError: none can be read.
    """
    folder = local_path(folder)
    whole: list[str] = []
    damaged: dict[str, str] = {}
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        bar(desc="embedding", unit="image", total=len(names), delay=2, disable=not progress) as progress_bar,
    ):

        def decoded_images(names: Sequence[str]) -> Iterator[np.ndarray]:
            for start in range(0, len(names), embedder.batch):
                block = names[start : start + embedder.batch]
                read = partial(image_or_fault, folder, embedder.image_size)
                for name, image in zip(block, pool.map(read, block), strict=True):
                    if isinstance(image, str):
                        damaged[name] = image
                    else:
                        whole.append(name)
                        yield image
                progress_bar.update(len(block))

        cameras = cameras_of(names, embedder, camera)
        groups = {cameras: names} if not isinstance(cameras, list) else _by_camera(names, cameras)
        parts = [embedder(decoded_images(own), camera=of, progress=False) for of, own in groups.items()]
    if not whole:
        raise ValueError(f"{folder}: no image in it can be read: {name_faults(damaged)}")
    place = {name: number for number, name in enumerate(names)}
    order = np.argsort([place[name] for name in whole])
    return np.concatenate(parts)[order], [whole[row] for row in order], damaged


def _by_camera(names: Sequence[str], cameras: Sequence[Camera]) -> dict[Camera, list[str]]:
    groups: dict[Camera, list[str]] = {}
    for name, camera in zip(names, cameras, strict=True):
        groups.setdefault(camera, []).append(name)
    return groups


def image_or_fault(folder: Path, image_size: tuple[int, int], name: str) -> np.ndarray | str:
    """The decoded image, uint8 [height, width, 3], or what is wrong with its file, in a few words."""
    encoded = b""
    try:
        encoded = (folder / name).read_bytes()
        return images.decode_image(encoded, image_size, name)
    except FileNotFoundError:
        return "not there any more"
    except OSError as error:
        return f"cannot be read: {error.strerror or reason_of(error)}"
    except ValueError as error:
        return images.find_fault(encoded) or str(error)


def find_images(folder: str | Path) -> tuple[list[str], list[str]]:
    """Lists the files below a folder.

    Returns:
      Paths relative to the folder, sorted: of the images, by `SUFFIXES`, and of all other files, of links that lead
      nowhere and of linked folders, which are not searched. Hidden files and those of `source.SKIPPED` are in
      neither.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no images in it.
    """
    folder = local_path(folder)
    if not folder.is_dir():
        fault = "is a file: give the folder that it lies in" if folder.is_file() else "no such folder"
        raise FileNotFoundError(f"{folder}: {fault}")
    images: list[str] = []
    not_images: list[str] = []
    for name, kind in _files_below(folder, ""):
        is_image = not kind and name.lower().endswith(SUFFIXES)
        (images if is_image else not_images).append(name + kind)
    if not images:
        seen = f"; it has {name_some(not_images)}" if not_images else ""
        raise ValueError(f"{folder}: no images in it{seen}; names of images end in {', '.join(SUFFIXES)}")
    return images, not_images


def _files_below(folder: Path, below: str) -> Iterator[tuple[str, str]]:
    """Yields (path relative to the folder, "" for a file, or a word for what else it is), sorted folder by folder."""
    try:
        with os.scandir(folder / below) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield below.removesuffix("/"), f" (a folder that cannot be read: {error.strerror})"
        return
    for entry in entries:
        name = f"{below}{entry.name}"
        if is_skipped(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder, f"{name}/")
        elif entry.is_file():
            yield name, ""
        elif entry.is_symlink():
            yield name, " (a link to a folder)" if entry.is_dir() else " (a link that leads nowhere)"
        else:
            yield name, " (no regular file)"


def labels_of(name: str) -> tuple[int, int] | None:
    """(pid, camid) of a name like those of Market-1501, 0002_c1s1_000451_03.jpg; None for others."""
    match = LABELS.match(Path(name).name)
    return (int(match[1]), int(match[2])) if match else None


def shown_label(name: str) -> tuple[str, str] | None:
    """(person, camera) that a name tells, as text; None for others."""
    labels = labels_of(name)
    return (str(labels[0]), str(labels[1])) if labels else None


def cameras_of(
    names: Sequence[str], embedder: Embedder, camera: Camera | Mapping[str, Camera] | None = None
) -> Camera | list[Camera] | None:
    """Returns the camera whose statistics an adapted network uses for images, as `Embedder` takes it.

    Args:
      names: of the images.
      embedder: the network.
      camera: of all images, or of each by its name; None takes, of an adapted network, the cameras that the names
        tell, if all do.
    """
    if isinstance(camera, Mapping):
        return [camera[name] for name in names] if embedder.cameras else None
    labels = [labels_of(name) for name in names]
    if camera is not None or not embedder.cameras or None in labels:
        return camera
    return [label[1] for label in labels if label]


def cameras_by_name(names: Sequence[str], labels: Mapping[str, Label]) -> dict[str, Camera] | None:
    """Returns the cameras that a CSV has of images by their names, and of images that it does not list those that the
    names tell, or ""; None where the CSV has no cameras."""
    if not any(label.camera for label in labels.values()):
        return None
    return {name: labels[name].camera if name in labels else (shown_label(name) or ("", ""))[1] for name in names}


def write_gallery(path: str | Path, gallery: Gallery) -> None:
    """Writes a .npz file, atomically: an array for each field, without those that are None."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{name: field for name, field in gallery._asdict().items() if field is not None})


def described_gallery(path: str | Path) -> str:
    """Returns "a gallery of 2 embeddings (model 0123abcd)" of a file of `write_gallery`; "" for any other file.

    The embeddings are not read.
    """
    if is_opened(local_path(path)):  # reading a pipe would wait for its writer
        return ""
    try:
        with np.load(os.path.realpath(local_path(path)), allow_pickle=False) as file:
            number, network = len(file["name"]), str(file["network"])
    except UNREADABLE:
        return ""
    return f"a gallery of {number:,} embeddings (model {network[:DIGITS]})"


def load_gallery(path: str | Path) -> Gallery:
    """Reads what `write_gallery` wrote.

    Raises:
      FileNotFoundError: no such file.
      ValueError: one line: it is none of these files, is cut off, or its arrays do not go together.
    """
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `mancs embed` writes one")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            fields = {name: file[name] for name in Gallery._fields if name in file}
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a .npz file of `mancs embed`, or is cut off") from error
    if missing := [name for name in FIELDS if name not in fields]:
        raise ValueError(f"{path} has no {', '.join(missing)}; it has to be a file of `mancs embed`")
    if fault := _fault_of(fields):
        raise ValueError(f"{path}: {fault}; embed the folder again")
    plain = {name: fields[name].item() for name in ("network", "flip", "normalize")}
    return Gallery(**fields | plain)


def _fault_of(fields: dict[str, np.ndarray]) -> str:
    """Tells which array of a gallery's file has another shape or type than `Gallery` says; "" where none has."""
    number = len(fields["embedding"]) if fields["embedding"].ndim else 0
    for name, array in fields.items():
        kinds, ndim, form = FORMS[name]
        if array.dtype.kind not in kinds or array.ndim != ndim:
            return f"{name} is {array.dtype} {list(array.shape)}; it has to be {form}"
        if ndim and len(array) != number:
            return f"{name} has {len(array):,} entries, and embedding has {number:,}"
    if ("pid" in fields) != ("camid" in fields):
        present, missing = ("pid", "camid") if "pid" in fields else ("camid", "pid")
        return f"it has {present} without {missing}"
    return "" if fields["embedding"].size else "embedding is empty"


def check_network(gallery: Gallery, embedder: Embedder) -> None:
    """Raises ValueError where the gallery was embedded by another model, or in another way."""
    if gallery.network != embedder.network:
        raise ValueError(
            "the gallery was embedded by another model, or by another step of its training: embed it again with "
            "this model"
        )
    if (gallery.flip, gallery.normalize) != (embedder.flip, embedder.normalize):
        raise ValueError(
            f"the gallery was embedded with flip={gallery.flip}, normalize={gallery.normalize}, the query not"
        )


def without_itself(
    found: Found, gallery: Gallery, query: str | Path, embedding: Float[np.ndarray, "1 D"], k: int
) -> tuple[Found, str]:
    """Excludes the query itself from its results, if its file is one of the gallery.

    Args:
      found: the k + 1 nearest of one query, or as many as there are.
      gallery: searched.
      query: image file.
      embedding: of the query.
      k: results to keep.

    Returns:
      (at most k results, the name of the entry that was left out; "" where there was none).
    """
    path = local_path(query).resolve().as_posix()
    is_itself = np.array(
        [
            i >= 0
            and path.endswith(f"/{gallery.name[i]}")
            and np.allclose(gallery.embedding[i], embedding[0], rtol=0, atol=SAME * np.abs(embedding).max())
            for i in found.index[0]
        ]
    )
    index, distance = (field[:, ~is_itself][:, :k] for field in (found.index, found.distance))
    kept = found._replace(index=index, distance=distance)
    return kept, str(gallery.name[found.index[0][is_itself][0]]) if is_itself.any() else ""


def table(found: Found, gallery: Gallery, nothing: str = "no match") -> str:
    """The results of the first query as aligned lines: rank, distance, pid and camid where they are known, name.

    Without results it is the line `nothing`.
    """
    rows = [["rank", "distance", *([] if gallery.pid is None else ["pid", "camid"]), "name"]]
    for rank, (i, distance) in enumerate(answers_of(found), start=1):
        labels = map(escaped, gallery.shown(i) or ())
        rows.append([str(rank), f"{distance:.4f}", *labels, escaped(str(gallery.name[i]))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    if len(rows) == 1:
        return nothing
    return "\n".join("  ".join([*map(str.rjust, row, widths), row[-1]]) for row in rows)


def picture(
    query: str | Path,
    found: Found,
    gallery: Gallery,
    images: Mapping[int, UInt8[np.ndarray, "h w 3"]],
    image_size: tuple[int, int],
    label: tuple[str, str] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws the query and its results: green if correct, red if wrong, grey without labels, see `is_correct`.

    Args:
      query: image file.
      found: its results.
      gallery: that they come from.
      images: of the results, by their positions in the gallery.
      image_size: (height, width) of the query in the picture.
      label: (person, camera) of the query, as `Gallery.shown`; None takes those that its name tells.
    """
    from mancs_jax.reporting import ranked_lists  # not at the top: few searches draw a picture

    query, label = local_path(query), label or shown_label(str(query))
    captions = ["query", ranked_lists.captioned(*label) if label else query.stem]
    cells = [ranked_lists.framed(decoded(query, image_size), ranked_lists.QUERY, captions)]
    for i, distance in answers_of(found):
        name, shown = Path(str(gallery.name[i])), gallery.shown(i)
        caption = ranked_lists.captioned(*shown) if shown else name.stem
        colours = {None: ranked_lists.QUERY, True: ranked_lists.RIGHT, False: ranked_lists.WRONG}
        cells.append(ranked_lists.framed(images[i], colours[is_correct(label, shown)], [caption, f"{distance:.3g}"]))
    return ranked_lists.joined(cells, axis=1)


def is_correct(query: tuple[str, str] | None, result: tuple[str, str] | None) -> bool | None:
    """Returns whether a result shows the person of the query, by their labels (person, camera); None if it is unknown:
    one has no label or is junk (-1), or the query is a distractor (0)."""
    if query is None or result is None or query[0] in ("0", JUNK) or result[0] == JUNK:
        return None
    return query[0] == result[0]


def answers_of(found: Found) -> list[tuple[int, float]]:
    """(gallery entry, distance) of the results of the first query, none beyond the greatest distance."""
    pairs = zip(found.index[0].tolist(), found.distance[0].tolist(), strict=True)
    return [(i, distance) for i, distance in pairs if i >= 0]


def decoded(path: Path, image_size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """A decoded image; OSError or ValueError where it cannot be read."""
    return images.decode_image(path.read_bytes(), image_size, str(path))
