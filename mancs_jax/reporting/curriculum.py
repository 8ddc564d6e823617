"""Figure 3 of the paper from the code that samples: the probability of a negative against its rank, as epochs go by."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mancs_jax.losses.sampling import curriculum_gaussian, rank_probabilities
from mancs_jax.reporting import chart

SHARES = (0.1, 0.4, 0.7, 1.0, 1.1)  # of t0, at which the distribution is drawn


def probabilities(config: ConfigDict, epoch: float) -> np.ndarray:
    """Probability of each rank, 0 the nearest negative, at an epoch: [N_n] (equations 3, 4 and 6)."""
    loss, data = config.loss, config.data
    num_ranks = (data.p - 1) * data.k
    num_ranks = min(num_ranks, loss.num_nearest or num_ranks)
    mu, sigma = curriculum_gaussian(
        jnp.float32(epoch), num_ranks, t0=loss.t0, t1=loss.t1, a=loss.a, b=loss.b, mu_step=loss.mu_step or None
    )
    return np.asarray(rank_probabilities(mu, sigma, num_ranks, loss.density_floor))


def figure_3(configs: dict[str, ConfigDict]) -> str:
    """An SVG document: for each recipe, named, a panel with a curve for some epochs.

    The panels share the axis of the ranks, from 0 (hardest) to the number of negatives in the batch.
    """
    panels = []
    for name, config in configs.items():
        curves = {}
        for share in SHARES:
            epoch = share * config.loss.t0
            by_rank = probabilities(config, epoch)
            curves[f"t = {epoch:g}"] = np.stack([np.arange(len(by_rank)), by_rank], axis=1)
        last = max((other.data.p - 1) * other.data.k for other in configs.values())
        panels.append(chart.lines(f"P(rank), {name}", curves, last, "rank, 0 is the hardest negative"))
    return chart.document(panels)
