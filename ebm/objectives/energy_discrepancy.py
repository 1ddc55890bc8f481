r"""Energy discrepancy: data against their own neighbours, by energies alone, with neither scores nor chains.

    min_theta  E_data E_y[ log( w/M + (1/M) sum_j exp(U(x) - U(y + sqrt(t) z_j)) ) ],   y = x + sqrt(t) z

U = -log p_theta up to a constant (tilt and energy), z and z_j ~ N(0, I). Between score matching (t -> 0) and maximum
likelihood (t -> infinity). Schröder et al., arXiv 2307.06431.

At w = 1, x is one of M + 1 candidates for what was blurred into y, and the loss is that of naming it (ranking NCE, Ma
and Collins, arXiv 1809.01812): the data's density is then stationary for every M. At other w only as M -> infinity.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ebm.method import Method, from_point_loss
from ebm.model import Model

__all__ = ["energy_discrepancy"]


def energy_discrepancy(
    model: Model, *, noise_scale: float, num_negatives: int = 16, stabilisation: float = 1.0
) -> Method:
    """Energy discrepancy with a Gaussian perturbation (Schröder et al., arXiv 2307.06431).

    Parameters
    ----------
    model
        Energy and tilt; no derivatives in x are taken.
    noise_scale
        sqrt(t), in the data's units. The weights of modes are learned only if it spans the gap between them; a large
        one in many dimensions needs many negatives, as few then look like data.
    num_negatives
        M, for each data point.
    stabilisation
        w. At 1 unbiased for every M. At 0 the loss is unbounded below: the energy of data may sink without end.

    Returns
    -------
    Method
        Its loss is a scalar in nats; nothing is learned beside theta.

    Raises
    ------
    ValueError
        If an option is out of range.

    Example
    -------
    >>> x = jnp.zeros(2)
    >>> method = energy_discrepancy(Model(*mlp(x), normal(x, scale=3.0)), noise_scale=1.0)
    """
    if not noise_scale > 0:
        raise ValueError(f"noise_scale must be positive, got {noise_scale}.")
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives}.")
    if not stabilisation >= 0:
        raise ValueError(f"stabilisation must not be negative, got {stabilisation}.")

    def point_loss(rng_key, theta, position):
        vector, unravel = ravel_pytree(position)
        z = jax.random.normal(rng_key, (1 + num_negatives, vector.size), vector.dtype)
        negatives = vector + noise_scale * (z[0] + z[1:])
        log_p = jax.vmap(lambda x: model.logdensity(theta, unravel(x)))(negatives)
        differences = log_p - model.logdensity(theta, position)  # U(x) - U(y + sqrt(t) z_j)
        floor = jnp.log(jnp.full((1,), stabilisation, log_p.dtype))
        return jax.nn.logsumexp(jnp.concatenate([floor, differences])) - jnp.log(num_negatives)

    return from_point_loss(point_loss)
