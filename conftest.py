"""How every test runs: on CPU as eight devices, strict about ranks, with compiled code kept between runs."""

import os
import shutil
from pathlib import Path

from mancs_jax.common.xla_flags import is_known

# Set before the first import of jax, in variables, so that the scripts that tests start inherit them.
FLAGS = ["--xla_force_host_platform_device_count=8"]
if not os.environ.get("MANCS_USER_FLAGS"):  # `make test-user-flags` compiles as users do
    # A test runs a program once or twice: compiling it takes longer. Without LLVM's optimisations and MLIR's fusions,
    # compiling takes a quarter of the processor time. jaxlib 0.12 has no option for the latter any more.
    FLAGS += ["--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *filter(is_known, FLAGS)]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from jaxtyping import install_import_hook  # noqa: E402

# Every annotated function of these packages checks shapes and types of its arguments and its result; an int is a float.
CHECK = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
CHECKED = ("evaluation", "inference", "kernels", "losses", "models")
install_import_hook([f"mancs_jax.{package}" for package in CHECKED], CHECK)

from mancs_jax.cli.command_line import COLLECTED_AFTER  # noqa: E402
from mancs_jax.common.processor import set_cpu_flags  # noqa: E402

set_cpu_flags()  # as the commands that tests start, which then find the programs compiled here

import gc  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

MAPS = Path("/proc/self/maps")
MOST_MAPS = 20_000  # a program for eight devices maps some thousand regions of memory; Linux aborts it at 65,530

# The same examples each time; no deadline, since the first one of a test compiles.
settings.register_profile("reproducible", deadline=None, derandomize=True, database=None)
settings.load_profile("reproducible")


def pytest_collection_finish():
    """Spares the collector all that was imported: it would look through it again and again while JAX traces."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


@pytest.fixture(autouse=True)
def few_mapped_regions():
    """Forgets compiled programs before there are too many for one process."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture
def one_device():
    """Hides seven devices: of a state on eight, Orbax saves slices, and compiles a hundred programs for them."""
    devices = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("devices", "local_devices"):
            monkeypatch.setattr(jax, name, lambda *_, **__: devices)
        yield


@pytest.fixture(scope="module")
def browser():
    """A browser without a network; skips where the machine has none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        yield running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
