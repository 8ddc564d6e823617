"""The description that is stored with each checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Description(NamedTuple):
    """The JSON of a checkpoint, stored next to its arrays."""

    config: dict[str, Any]  # of the run, as `config.to_dict()`
    num_classes: int
    data_fingerprint: str  # of the training images and their labels; "" where unknown
    best: float | None = None  # the highest mAP in validation so far
    pretrained_on: Sequence[str] = ()  # see `weights.start.data_sets_before`

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "Description":
        """Returns the description that the card of a shared or exported model was made from."""
        return cls(**{name: card[name] for name in cls._fields if name in card})
