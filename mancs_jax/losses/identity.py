"""Classification of the identity: focal loss, cross-entropy and the attention loss (paper sections 3.4 and 3.5)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

Array = jax.Array | np.ndarray


def true_class_log_probability(
    logits: Float[Array, "B C"], labels: Int[Array, " B"], probability: str
) -> Float[jax.Array, " B"]:
    """Returns `log p_i` of the true class (equation 7), labels 0..C-1.

    `probability`: "sigmoid" of only the true class's logit (as printed), or "softmax" over all classes (release).
    """
    log_probability = jax.nn.log_sigmoid(logits) if probability == "sigmoid" else jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probability, labels[:, None], axis=1)[:, 0]


def focal_loss(
    logits: Float[Array, "B C"],
    labels: Int[Array, " B"],
    *,
    gamma: float,
    probability: str,
    detach_weight: bool = False,
    label_smoothing: float = 0.0,
) -> Float[jax.Array, ""]:
    """`-mean((1 - p)^gamma * log p)` (equation 8); gamma = 0 is cross-entropy, and 2 the paper's.

    With `label_smoothing` e, 0 to below 1 (Szegedy et al. 2016, section 7), it is the sum of that term over all classes
    c, weighted by the smoothed target: 1 - e + e/C for the true class, e/C for every other class; it needs "softmax" as
    `probability`, see `true_class_log_probability`. With `detach_weight`, (1 - p)^gamma is constant in the gradient
    (release).
    """
    log_p = true_class_log_probability(logits, labels, probability)
    true_class_loss = jnp.mean(_focal_terms(log_p, gamma, detach_weight))
    if not label_smoothing:
        return true_class_loss
    mean_class_loss = jnp.mean(_focal_terms(jax.nn.log_softmax(logits), gamma, detach_weight))
    return (1 - label_smoothing) * true_class_loss + label_smoothing * mean_class_loss


def _focal_terms(log_p: Float[jax.Array, "*shape"], gamma: float, detach_weight: bool) -> Float[jax.Array, "*shape"]:
    """Returns `-(1 - p)^gamma * log p` of each element."""
    if gamma == 0:
        return -log_p
    # -expm1(log p) = 1 - p without cancellation; where p rounds to 1 a power below 1 would have an infinite gradient.
    focal_weight = jnp.maximum(-jnp.expm1(log_p), 1e-7) ** gamma
    return -(jax.lax.stop_gradient(focal_weight) if detach_weight else focal_weight) * log_p


def attention_loss(logits: Float[Array, "B C"], labels: Int[Array, " B"], *, kind: str) -> Float[jax.Array, ""]:
    """Supervises the attention masks (equations 9 and 10).

    `kind` is "sigmoid", a cross-entropy for every class, averaged over B*C (paper), or "softmax" (release).
    """
    if kind == "softmax":
        return focal_loss(logits, labels, gamma=0, probability="softmax")
    target = jax.nn.one_hot(labels, logits.shape[-1])
    return -jnp.mean(target * jax.nn.log_sigmoid(logits) + (1 - target) * jax.nn.log_sigmoid(-logits))
