"""A run that takes seconds: a small network on a small data set in the layout of Market-1501. Also a --config file."""

from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

from mancs_jax.config import defaults

EPOCHS, STEPS_PER_EPOCH = 4, 3  # 12 identities, 4 a batch


def get_config(variant: str = "") -> ConfigDict:
    """The paper recipe with everything small; "bare" compiles sooner, without attention, curriculum and erasing."""
    config = defaults.get_config()
    config.recipe = "tiny"
    config.pretrained = ""
    config.remat = ()
    config.epochs = float(EPOCHS)
    config.data.image_size = (64, 32)
    config.data.p, config.data.k = 4, 4
    config.model.arch, config.model.width = "resnet10", 8
    config.model.rank_dim = config.model.cls_dim = 32
    config.loss.t0, config.loss.t1, config.loss.a = 1.0, 2.0, 3.0
    config.checkpoint_every = 1.0
    config.eval_batch = 16
    if variant == "bare":
        config.model.fab_stages, config.loss.sampling, config.augment.erase = (), "batch_hard", 0.0
    return config.lock()


def write_folder(root: Path, people: int = 12) -> Path:
    """Writes `people` to train on and 4 to score, each under 2 cameras, as JPEG files; a colour a person."""
    rng = np.random.default_rng(0)

    def write(folder, name, colour):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.clip(colour + rng.integers(-20, 20, (64, 32, 3)), 0, 255).astype(np.uint8)
        assert cv2.imwrite(str(path), picture)

    for pid in range(1, people + 5):
        colour = rng.integers(0, 256, 3)
        for camera in (1, 2):
            for frame in range(2):
                name = f"{pid:04d}_c{camera}s1_{frame:06d}_01.jpg"
                if pid <= people:
                    write("bounding_box_train", name, colour)
                else:
                    write("query" if frame == 0 else "bounding_box_test", name, colour)
                    write("gt_bbox", name, colour)
    write("bounding_box_test", "0000_c1s1_000000_01.jpg", np.array([9, 9, 9]))
    write("bounding_box_test", "-1_c1s1_000000_01.jpg", np.array([99, 9, 9]))
    return root
