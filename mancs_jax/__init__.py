"""Mancs (Wang et al., ECCV 2018) in JAX: person re-identification with attention and curriculum sampling.

`load` makes a function of images from a trained model, `adapt` adapts a model to cameras without labels, `search` finds
the nearest gallery images, `verify` compares two images by a decision threshold (`threshold_of`), `score` evaluates
embeddings, `compare_results` compares two evaluations, `train_and_evaluate` trains. `import mancs_jax` does not import
jax: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mancs_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from mancs_jax.evaluation.features import score_embeddings as score
    from mancs_jax.evaluation.paired import compare_results
    from mancs_jax.evaluation.ranking import Found
    from mancs_jax.gallery.gallery import Gallery
    from mancs_jax.inference.adaptation import adapt
    from mancs_jax.inference.embedder import Embedder, load
    from mancs_jax.inference.index import build_index, load_index
    from mancs_jax.inference.search import search
    from mancs_jax.inference.thresholds import threshold_of
    from mancs_jax.inference.verification import verify
    from mancs_jax.run import train_and_evaluate

_MODULES = {
    "Embedder": "mancs_jax.inference.embedder:Embedder",
    "Found": "mancs_jax.evaluation.ranking:Found",
    "Gallery": "mancs_jax.gallery.gallery:Gallery",
    "adapt": "mancs_jax.inference.adaptation:adapt",
    "compare_results": "mancs_jax.evaluation.paired:compare_results",
    "build_index": "mancs_jax.inference.index:build_index",
    "load": "mancs_jax.inference.embedder:load",
    "load_index": "mancs_jax.inference.index:load_index",
    "score": "mancs_jax.evaluation.features:score_embeddings",
    "search": "mancs_jax.inference.search:search",
    "threshold_of": "mancs_jax.inference.thresholds:threshold_of",
    "train_and_evaluate": "mancs_jax.run:train_and_evaluate",
    "verify": "mancs_jax.inference.verification:verify",
}
__all__ = [
    "Embedder",
    "Found",
    "Gallery",
    "adapt",
    "build_index",
    "compare_results",
    "load",
    "load_index",
    "score",
    "search",
    "threshold_of",
    "train_and_evaluate",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
