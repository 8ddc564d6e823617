"""What a checkpoint tells about itself."""

from typing import Any, NamedTuple


class Description(NamedTuple):
    """The JSON of a checkpoint, beside its arrays."""

    config: dict[str, Any]  # of the run, as `config.to_dict()`
    num_classes: int
    data_fingerprint: str  # of the training images and their labels; "" where nobody knows it
    best: float | None = None  # the best score on the validation identities so far
