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
