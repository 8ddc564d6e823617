"""The inference network as one file that runs without this package, on CPU, GPU and TPU."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import numpy as np

from mancs_jax.common.atomic_write import atomic_write
from mancs_jax.inference.forward import create_forward, embed
from mancs_jax.inference.trained import load_trained

PLATFORMS = ("cpu", "cuda", "tpu")
# Largest difference from the model, as a part of the largest number of the embeddings.
TOLERANCE = 1e-5
CHECKED_BATCHES = (1, 3)

USE = """\
import jax
import jax.export
import numpy as np

network = jax.export.deserialize(open("{path}", "rb").read())
embed = jax.jit(network.call)  # compiles once for each number of images

# RGB, resized by you to {height} x {width} (height x width)
image = np.zeros((2, {height}, {width}, 3), np.uint8)
embedding = np.asarray(embed(image))  # float32 [2, {dim}]
print(embedding.shape)
"""


def export(source: str | Path, output: str | Path, *, flip: bool = False) -> str:
    """Writes the trained network with its parameters and the normalisation of pixels as one `jax.export` file.

    It takes uint8 [N, H, W, 3], RGB, any N, of the size the network was trained on, and gives float32 [N, D]. Resizing
    stays outside: training averages over areas with OpenCV, which no operation of JAX does to the last digit.

    Args:
      source: see `mancs_jax.load`.
      output: the file; its folder is made. It has its name only once its numbers have been compared with the model's.
      flip: average the embeddings of an image and of its mirror image.

    Returns:
      The lines of Python that run it, with jax, flatbuffers and numpy installed.

    Raises:
      FileNotFoundError: no network there.
      ValueError: the file's numbers are not the model's.
    """
    network = load_trained(source).network
    height, width = network.config.data.image_size
    forward = create_forward(network.config, network.num_classes, flip)
    batch = jax.export.symbolic_shape("batch")[0]
    shape = jax.ShapeDtypeStruct((batch, height, width, 3), np.uint8)
    exported = jax.export.export(jax.jit(lambda image: forward(network.variables, image)[0]), platforms=PLATFORMS)(
        shape
    )
    devices = jax.local_devices()[:1]

    with atomic_write(output) as temporary:
        temporary.write_bytes(exported.serialize())
        check(temporary, lambda image: embed(network, image, devices=devices, flip=flip), (height, width))
    return USE.format(path=output, height=height, width=width, dim=exported.out_avals[0].shape[1])


def check(path: Path, embed: Callable[[np.ndarray], np.ndarray], image_size: tuple[int, int]) -> None:
    """Raises ValueError where an exported file gives other numbers than `embed`, for noise in batches of two sizes."""
    call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    rng = np.random.default_rng(0)
    for batch in CHECKED_BATCHES:
        image = rng.integers(0, 256, (batch, *image_size, 3), dtype=np.uint8)
        expected, found = embed(image), np.asarray(call(image))
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        if not difference <= TOLERANCE:
            raise ValueError(
                f"the exported network is off by {difference:.1e} of its largest number, more than {TOLERANCE}: "
                "nothing was written"
            )
