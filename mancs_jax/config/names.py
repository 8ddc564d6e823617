"""Names that fields of a configuration may hold, and that the stations share."""

# Data sets with a reader of their own. Others are prepared from a folder, under a name of the user's.
DATASETS = (
    "market1501",
    "market1501_500k",
    "dukemtmc_reid",
    "cuhk01",
    "cuhk03_labeled",
    "cuhk03_detected",
    "walkers",
)
CUHK03 = ("cuhk03_labeled", "cuhk03_detected")  # the same people in boxes of two kinds
NUM_TESTSETS = 20  # of CUHK03's classic protocol
ARCHITECTURES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def sources(name: str) -> tuple[str, ...]:
    """Splits `config.data.name` into the names of the data sets that a network trains on: "a,b" -> ("a", "b")."""
    return tuple(part.strip() for part in name.split(","))


def num_of_each_source(p: int, num_sources: int) -> tuple[int, ...]:
    """Returns the identities of each source in a balanced batch of `p`: equal, the first ones take what is left."""
    return tuple(p // num_sources + (source < p % num_sources) for source in range(num_sources))
