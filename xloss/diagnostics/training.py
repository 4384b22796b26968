# SPDX-License-Identifier: Apache-2.0
"""What to look at beside the loss: attention logits, sensitivity to the learning rate.

The tools of Wortsman et al., "Small-scale proxies for large-scale Transformer training
instabilities" (ICLR 2024, arXiv 2309.14322), next to the log-partition penalty, which is
``classification.log_partition_penalty``. Reach for them when a run becomes unstable at a high
learning rate. Evidence: published formula, derived and checked.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array


def qk_layernorm(
    q: ArrayLike, k: ArrayLike, gamma_q: ArrayLike, gamma_k: ArrayLike, *, eps: ArrayLike = 1e-6
) -> tuple[Array, Array]:
    """Layer norm of queries and keys over the head dimension: bounds the attention logits.

    Definition, per position and head, with mean and variance over the D entries::

        q' = gamma_q (q - mean q) / sqrt(var q + eps), k' likewise;
        |q' . k'| / sqrt(D) <= sqrt(D) max |gamma_q gamma_k|

    Apply it before rotary embeddings.

    Args:
      q: queries [..., D], any float dtype.
      k: keys [..., D].
      gamma_q: learned scale [D], shared by the heads; there is no bias.
      gamma_k: learned scale [D].
      eps: scalar > 0.

    Returns:
      (q', k') in the dtypes of q and k; computed in float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: a scale that is not [D].

    Example:
      >>> import jax.numpy as jnp
      >>> q, _ = qk_layernorm(jnp.array([1.0, 3.0]), jnp.ones(2), jnp.ones(2), jnp.ones(2))
      >>> [round(x, 3) for x in q.tolist()]
      [-1.0, 1.0]
    """
    name = "qk_layernorm"
    eps = checks.number(name, "eps", eps, low=0.0, open_low=True)

    def normalised(x: ArrayLike, gamma: ArrayLike, argument: str) -> Array:
        x = checks.floating(name, argument, x)
        gamma = checks.floating(name, f"gamma_{argument}", gamma)
        checks.same_shape(name, f"gamma_{argument}", gamma, x.shape[-1:])
        y = jax.nn.standardize(numerics.promote(x), axis=-1, epsilon=eps)
        return (y * jnp.broadcast_to(gamma.astype(y.dtype), y.shape)).astype(x.dtype)

    return normalised(q, gamma_q, "q"), normalised(k, gamma_k, "k")


def attention_logits(q: ArrayLike, k: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
    """Scaled dot products q . k / sqrt(D) of every query with every key, in float32.

    Args:
      q: queries [T, H, D].
      k: keys [S, H, D].
      mask: bool [T, S]; False means the key is not seen.

    Returns:
      Logits [H, T, S], -inf where masked.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit.
    """
    name = "attention_logits"
    q, k = checks.floating(name, "q", q), checks.floating(name, "k", k)
    if q.ndim != 3 or k.ndim != 3 or q.shape[1:] != k.shape[1:]:
        raise ValueError(
            f"{name}: expected q [T, H, D] and k [S, H, D], got {q.shape} and {k.shape}"
        )
    dtype = numerics.working_dtype(q.dtype)
    logits = jnp.einsum("thd,shd->hts", q, k, preferred_element_type=dtype) / q.shape[-1] ** 0.5
    mask = checks.mask(name, mask, logits.shape[1:])
    return logits if mask is None else jnp.where(mask[None], logits, -jnp.inf)


def attention_logit_statistics(
    q: ArrayLike, k: ArrayLike, *, mask: ArrayLike | None = None
) -> dict[str, Array]:
    """The numbers that announce attention collapse: greatest logit and entropy.

    Collapse sets in once the greatest logit is of the order of 1e4; its growth with the learning
    rate and the model's size can be extrapolated from small models.

    Args:
      q: queries [T, H, D], after :func:`qk_layernorm` if the model uses it.
      k: keys [S, H, D].
      mask: bool [T, S]; False means the key is not seen.

    Returns:
      "max_logit" (scalar) and "entropy" [H, T] in nats, 0 for a query that sees one key
      or none.

    Raises:
      TypeError, ValueError: as :func:`attention_logits`.
    """
    logits = attention_logits(q, k, mask=mask)
    blind = jnp.all(jnp.isneginf(logits), axis=-1, keepdims=True)
    log_p = jax.nn.log_softmax(jnp.where(blind, 0.0, logits), axis=-1)
    entropy = -jnp.sum(numerics.multiply_no_nan(jnp.exp(log_p), log_p), axis=-1)
    entropy = jnp.where(blind[..., 0], 0.0, entropy)
    return {"max_logit": jnp.max(logits), "entropy": entropy}


def lr_sensitivity(final_losses: ArrayLike, initial_loss: ArrayLike) -> Array:
    """How much the final loss depends on the learning rate: 0 is a flat, stable recipe.

    Definition, over runs at learning rates on a log-spaced grid (the paper: 3e-4 to 3e-1)::

        mean over runs of min(final loss, initial loss) - best final loss

    Args:
      final_losses: one per learning rate, [N], float; NaN or inf is a run that diverged and
        counts as the initial loss.
      initial_loss: loss at initialisation, scalar.

    Returns:
      Scalar >= 0, in the unit of the losses; 0 if every run diverged.

    Raises:
      TypeError: wrong dtype.
      ValueError: final_losses is not [N] with N >= 1.

    Example:
      >>> import jax.numpy as jnp
      >>> float(lr_sensitivity(jnp.array([2.0, 3.0, jnp.nan]), 5.0))
      1.3333334
    """
    name = "lr_sensitivity"
    losses = numerics.promote(checks.floating(name, "final_losses", final_losses))
    if losses.ndim != 1 or losses.size == 0:
        raise ValueError(f"{name}: expected final_losses [N] with N >= 1, got {losses.shape}")
    initial = numerics.scalar(checks.number(name, "initial_loss", initial_loss), losses)
    capped = jnp.where(jnp.isfinite(losses), jnp.minimum(losses, initial), initial)
    # The difference before the mean: exactly 0 for equal runs, never below.
    return jnp.mean(capped - jnp.min(capped))
