"""A trained network as a function: images of any kind and size in, embeddings out."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from ml_collections import ConfigDict

from mancs_jax.common.local_path import local_path
from mancs_jax.common.one_process import check_not_forked
from mancs_jax.common.screen import bar
from mancs_jax.data import images
from mancs_jax.data.boxes import FORM, checked_boxes, cut, to_pixels
from mancs_jax.data.sources.labels import camera_name
from mancs_jax.evaluation.distances import normalized
from mancs_jax.inference.exported import open_exported
from mancs_jax.inference.forward import batch_size, run_batches
from mancs_jax.inference.network import Network, camera_groups, camera_names, network_of_camera
from mancs_jax.inference.trained import exported_path, load_trained

BATCH = 32  # quick enough for a single image, and large enough to keep a CPU or a GPU busy
Picture = UInt8[np.ndarray, "_ _ 3"]  # RGB
WANTED = "give a path, a uint8 array [height, width, 3] in RGB or a PIL image"


@dataclass(frozen=True)
class Embedder:
    """A trained network as a function of images; `load` makes it."""

    config: ConfigDict = field(repr=False)  # of the training
    image_size: tuple[int, int]  # (height, width), to which every image is resized
    width: int  # of an embedding, D
    batch: int  # images that go through all devices together
    flip: bool
    normalize: bool
    network: str  # 32 hex digits that depend on every parameter: embeddings of two networks cannot be compared
    card: dict[str, Any] = field(repr=False)  # what the network is for, takes, gives and scores, see `network_file`
    cameras: tuple[str, ...]  # that the network is adapted to, see `mancs_jax.adapt`
    embed_batches: Callable[..., Iterator[np.ndarray]] = field(repr=False)  # (batches, camera) -> embeddings of each

    def __call__(
        self,
        images: Any,
        boxes: Any = None,
        *,
        camera: Any = None,
        bad_boxes: str = "error",
        progress: bool = True,
    ) -> Float32[np.ndarray, "N D"]:
        """Embeds images, or boxes of one image.

        Files are decoded and resized as in training and evaluation (`images.decode_image`), a batch at a time, by as
        many threads as there are cores. The orientation in a photograph's EXIF data is obeyed, grey images get
        three equal channels, and transparency is dropped; PIL images are treated alike. Arrays are taken as they are.

        Args:
          images: a path (str or Path), an array uint8 [H, W, 3] in RGB or a PIL image; an array uint8 [N, H, W, 3];
            or any iterable of the former, mixed and of any sizes. A generator is read as it is needed.
          boxes: numbers [N, 4], x1, y1, x2, y2 in pixels of one image, the frame, see `data.boxes`; fractions are
            rounded, and what lies outside the frame is cut off. Each box gives what its crop as an image gives.
          camera: the camera of the images, whose statistics an adapted network uses: a name for all, or names [N], one
            for each image; an integer stands for its digits. Images are then grouped by camera, and a generator of
            them is read to its end first. None, -1, "" and cameras that the network does not know stand for its own
            statistics; of the last, a line on stderr says so once.
          bad_boxes: "error" refuses a box that has NaN, no area, or no pixel in the frame; "zeros" gives it an
            embedding of zeros.
          progress: whether a bar is shown of what takes longer than two seconds.

        Returns:
          An embedding of each image or box; of a single image [1, D].

        Raises:
          FileNotFoundError: no such file.
          ValueError, TypeError: one line: a file that is no image, an array or an object of another kind, a box, with
            its number, that cannot be cut out; boxes as fractions of the frame; or cameras that are neither names nor
            integers, one or as many as images.
          RuntimeError: one line: this process was forked from the one that loaded the network.
        """
        check_not_forked()
        if boxes is not None:
            if np.asarray(camera).ndim:
                raise ValueError("boxes come from one frame, and a frame from one camera: give camera as one name")
            crops, is_good = _crops(images, boxes, bad_boxes)
            embedding = np.zeros((len(is_good), self.width), np.float32)
            embedding[is_good] = self(crops, camera=camera, progress=progress)
            return embedding
        if camera is not None:
            return self._by_camera(images, camera, progress)
        return self._embed(images, None, progress)

    def _by_camera(self, images: Any, camera: Any, progress: bool) -> np.ndarray:
        given = np.asarray(camera)
        if (given.dtype.kind not in "iuU" and given.size) or given.ndim > 1:
            raise ValueError(f"camera is {camera!r}: it has to be a name or an integer, or one for each image")
        names = camera_names(np.atleast_1d(given))
        if given.ndim == 0:
            [(known, _)] = self._groups(names)
            return self._embed(images, known, progress)
        images = [_path_or_array(f"image {number}", image) for number, image in enumerate(_several(images))]
        if len(images) != len(names):
            raise ValueError(f"camera has {len(names):,} names for {len(images):,} images: give one for each image")
        embedding = np.empty((len(images), self.width), np.float32)
        for known, rows in self._groups(names):
            embedding[rows] = self._embed([images[row] for row in rows], known, progress)
        return embedding

    def _groups(self, names: np.ndarray) -> list[tuple[str | None, np.ndarray]]:
        if (built_in := self.card.get("camera")) is None:
            return list(camera_groups(self.cameras, names))
        if np.any(names != camera_name(built_in)):
            raise ValueError(
                f"the exported file has the statistics of camera {built_in} only: load the adapted model for other "
                "cameras, or leave camera out"
            )
        return [(None, np.arange(len(names)))]

    def _embed(self, images: Any, camera: str | None, progress: bool) -> np.ndarray:
        images = _several(images)
        number = len(images) if hasattr(images, "__len__") else None
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            bar(desc="embedding", unit="image", total=number, delay=2, disable=not progress) as progress_bar,
        ):
            embeddings = self.embed_batches(_decoded_batches(images, self.image_size, self.batch, pool), camera)

            def rows():
                for embedding in embeddings:
                    progress_bar.update(len(embedding))
                    yield embedding

            # Grows as it is filled: a list of parts to concatenate would need twice the memory.
            row = np.dtype((np.float32, (self.width,)))
            embedding = np.fromiter(chain.from_iterable(rows()), row, count=-1 if number is None else number)
        return normalized("image", embedding) if self.normalize and len(embedding) else embedding


def load(
    source: str | Path,
    *,
    batch: int = BATCH,
    flip: bool = False,
    normalize: bool = False,
    devices: list[jax.Device] | None = None,
) -> Embedder:
    """Makes a function of images out of a trained network.

    It is compiled at the first call, for one size of batch: a single image takes as long as a batch, so `batch=1`
    suits one query at a time.

    Args:
      source: a workdir of training, whose best network is taken where validation chose one, else the latest; a file or
        folder of `mancs export --format=weights` or `mancs adapt`; an ONNX or `jax.export` file of `mancs export`; or
        the name of a network that comes with the package, as "market1501".
      batch: images that go through all devices together, at least 1; made a multiple of the number of devices.
      flip: average the embeddings of an image and of its mirror image, which takes twice as long. A file of `mancs
        export` does so always or never.
      normalize: divide each embedding by its norm. With `flip` or `normalize`, the card has neither thresholds
        nor calibration: they were set on other distances.
      devices: all local ones by default; one for a `jax.export` file, and none for ONNX.

    Raises:
      FileNotFoundError: no model there.
      ValueError: `batch` is below 1, a file is damaged, or an argument does not apply to it.
      ImportError: an ONNX file, and the libraries of the extra `onnx` are not installed.
      RuntimeError: one line: this process was forked from one that has loaded a network.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; it has to be at least 1")
    cameras: tuple[str, ...] = ()
    check_not_forked()
    if (path := exported_path(source)) is not None:
        exported = open_exported(path, batch=batch, flip=flip, devices=devices)
        config, card = exported.config, exported.card
        flip = card["exported"]["flip"]

        def embed_batches(batches: Iterable[np.ndarray], camera: str | None = None) -> Iterator[np.ndarray]:
            return exported.run_batches(batches)

    else:
        devices = jax.local_devices() if devices is None else devices
        trained = load_trained(source)
        config, card, batch = trained.network.config, trained.card, batch_size(batch, devices)
        cameras = tuple(trained.network.cameras)
        embed_batches = partial(_embed_batches, trained.network, batch=batch, devices=devices, flip=flip)
    if flip or normalize:  # thresholds and calibration were set on distances of other embeddings
        card = card | {name: None for name in ("thresholds", "calibration") if card.get(name)}
    height, width = config.data.image_size
    return Embedder(
        config=config,
        image_size=(height, width),
        width=card["embedding"]["width"],
        batch=batch,
        flip=flip,
        normalize=normalize,
        network=card["network"],
        card=card,
        cameras=cameras,
        embed_batches=embed_batches,
    )


def _crops(frame: Any, boxes: Any, bad_boxes: str) -> tuple[list[np.ndarray], Bool[np.ndarray, " N"]]:
    """The crops of the boxes that can be cut out, and which these are."""
    if bad_boxes not in ("error", "zeros"):
        raise ValueError(f"bad_boxes is {bad_boxes!r}: it may be 'error' or 'zeros'")
    boxes = checked_boxes(boxes)
    if not isinstance(frame, str | os.PathLike | np.ndarray) and not _is_pil(frame):
        raise TypeError(f"boxes go with one frame, not with {type(frame).__name__}: {WANTED}")
    pixels = _decoded(_path_or_array("the frame", frame), None)
    corners, faults = to_pixels(boxes, pixels.shape[:2])
    is_good = np.array([not fault for fault in faults], bool)
    if bad_boxes == "error" and not is_good.all():
        first = int(np.argmin(is_good))
        height, width = pixels.shape[:2]
        raise ValueError(
            f"box {first} {faults[first]}: {boxes[first].tolist()} in a frame of {width} x {height}; {FORM}; "
            "bad_boxes='zeros' gives it zeros"
        )
    return cut(pixels, corners[is_good]), is_good


def _embed_batches(
    network: Network, batches: Iterable[np.ndarray], camera: str | None = None, **options: Any
) -> Iterator[Float32[np.ndarray, "B D"]]:
    return (rows for rows, _ in run_batches(network_of_camera(network, camera), batches, **options))


def _several(images: Any) -> Iterable:
    """The images one by one, whatever was given."""
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":  # else the array is one of paths
        return images if images.ndim == 4 else [images]
    if isinstance(images, str | os.PathLike) or _is_pil(images):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, bytes | dict):
        raise TypeError(f"an image cannot be {type(images).__name__}: {WANTED}")
    return images


def _decoded_batches(
    images: Iterable, image_size: tuple[int, int], batch: int, pool: ThreadPoolExecutor
) -> Iterator[UInt8[np.ndarray, "B H W 3"]]:
    numbered = enumerate(images)
    while block := [_path_or_array(f"image {number}", image) for number, image in islice(numbered, batch)]:
        yield np.stack(list(pool.map(partial(_decoded, image_size=image_size), block)))


def _path_or_array(what: str, image: Any) -> Path | Picture:
    # PIL reads a file when its pixels are asked for, which two threads must not do at a time: hence not in the pool.
    if isinstance(image, str | os.PathLike):
        return local_path(image)
    if _is_pil(image):
        return _pixels(what, image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"{what} cannot be {type(image).__name__}: {WANTED}")
    _check_array(image, what)
    return image


def _decoded(image: Path | Picture, image_size: tuple[int, int] | None) -> Picture:
    if isinstance(image, np.ndarray):
        return images.resize(image, image_size)
    try:
        return images.decode_image(image.read_bytes(), image_size, str(image))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{image}: no such file") from error
    except IsADirectoryError as error:
        raise ValueError(f"{image} is a folder: give the images in it") from error


def _is_pil(image: Any) -> bool:
    pil = sys.modules.get("PIL.Image")  # whoever has a PIL image has imported it
    return pil is not None and isinstance(image, pil.Image)


def _pixels(what: str, image: Any) -> Picture:
    from PIL import ImageOps

    _check_area(image.size[::-1], what)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{what} is a PIL image of mode {image.mode}: convert it to 8 bits a channel")
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _check_array(image: np.ndarray, what: str) -> None:
    _check_area(image.shape, what)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{what} is {image.dtype} {list(image.shape)}: it has to be uint8 [height, width, 3], RGB")


def _check_area(shape: Sequence[int], what: str) -> None:
    if 0 in shape:
        raise ValueError(f"{what} is empty, {list(shape)}: a crop whose box lies outside the frame, or has no area")
