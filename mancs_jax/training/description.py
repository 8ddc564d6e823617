"""The description that is stored with each checkpoint."""

from typing import Any, NamedTuple


class Description(NamedTuple):
    """The JSON of a checkpoint, stored next to its arrays."""

    config: dict[str, Any]  # of the run, as `config.to_dict()`
    num_classes: int
    data_fingerprint: str  # of the training images and their labels; "" where unknown
    best: float | None = None  # the highest mAP in validation so far
