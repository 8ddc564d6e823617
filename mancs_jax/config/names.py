"""Data sets, architectures and distances, each listed once."""

# Data sets with their own reader. Others are prepared from a folder, under a name that the user gives.
DATASETS = ("market1501", "market1501_500k", "dukemtmc_reid", "cuhk01", "cuhk03_labeled", "cuhk03_detected", "walkers")
CUHK03 = ("cuhk03_labeled", "cuhk03_detected")  # the same people in boxes of two kinds
NUM_TESTSETS = 20  # of CUHK03's classic protocol
DISTANCES = ("euclidean", "cosine")
# Architecture -> blocks in conv-2 to conv-5. No ImageNet weights exist for ResNet-10, the smallest common variant.
STAGE_SIZES = {
    "resnet10": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BASIC_BLOCK = frozenset({"resnet10", "resnet18", "resnet34"})


def sources(name: str) -> tuple[str, ...]:
    """Splits `config.data.name` into the names of its data sets: "a,b" -> ("a", "b")."""
    return tuple(part.strip() for part in name.split(","))


def ids_of_each_source(p: int, num_sources: int) -> tuple[int, ...]:
    """Splits the P identities of a balanced batch equally over the sources; the first ones get the remainder."""
    return tuple(p // num_sources + (source < p % num_sources) for source in range(num_sources))
