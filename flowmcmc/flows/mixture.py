r"""A Gaussian mixture with a heavy-tailed part: the base density of every flow here.

    q(z) = (1 - eps) sum_k pi_k N(z; m_k, L_k L_k^T) + eps t_3(z; 0, 2^2 I)

Unused components have weight zero, so that one compiled function serves any number up to the length of the arrays. The
Student part is the `defensive` weight: it bounds the importance ratio p / q for any target with lighter tails
(Hesterberg 1995).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from flowmcmc.base import Array

__all__ = ["Mixture", "component_log_probs", "from_cholesky", "log_prob", "sample", "standard_mixture"]

STUDENT_DEGREES = 3  # of freedom of the Student part
STUDENT_SCALE = 2.0  # its scale


class Mixture(NamedTuple):
    """`log_weights` (K,), `means` (K, d), lower `cholesky` factors of the covariances (K, d, d) and their inverses."""

    log_weights: Array
    means: Array
    cholesky: Array
    inverse: Array


def standard_mixture(num_components: int, dim: int, dtype) -> Mixture:
    """A mixture with all its weight on one standard normal."""
    log_weights = jnp.full(num_components, -jnp.inf, dtype).at[0].set(0.0)
    eye = jnp.tile(jnp.eye(dim, dtype=dtype), (num_components, 1, 1))
    return Mixture(log_weights, jnp.zeros((num_components, dim), dtype), eye, eye)


def from_cholesky(log_weights: Array, means: Array, cholesky: Array) -> Mixture:
    """A mixture with the inverse factors computed."""
    eye = jnp.broadcast_to(jnp.eye(means.shape[-1], dtype=means.dtype), cholesky.shape)
    return Mixture(log_weights, means, cholesky, jax.scipy.linalg.solve_triangular(cholesky, eye, lower=True))


def component_log_probs(mixture: Mixture, z: Array) -> Array:
    """log pi_k + log N(z; m_k, L_k L_k^T), shape (K,)."""
    residual = jnp.einsum("kij,kj->ki", mixture.inverse, z[None] - mixture.means)
    log_det = jnp.sum(jnp.log(jnp.diagonal(mixture.inverse, axis1=-2, axis2=-1)), axis=-1)
    constant = 0.5 * z.shape[-1] * jnp.log(2 * jnp.pi).astype(z.dtype)
    return mixture.log_weights + log_det - 0.5 * jnp.sum(residual**2, axis=-1) - constant


def log_prob(mixture: Mixture, z: Array, defensive: float) -> Array:
    """log q(z) of one vector."""
    return with_student(jax.nn.logsumexp(component_log_probs(mixture, z)), z, defensive)


def with_student(log_q: Array, z: Array, defensive: float) -> Array:
    """Log density at z of the mixture of q, whose log density there is `log_q`, with the Student part."""
    if defensive == 0.0:
        return log_q
    return jnp.logaddexp(jnp.log1p(-defensive) + log_q, jnp.log(defensive) + student_log_prob(z))


def sample(rng_key: Array, mixture: Mixture, defensive: float) -> Array:
    """One exact draw from the mixture, Student part included."""
    dim, dtype = mixture.means.shape[-1], mixture.means.dtype
    normal, extra, (u_component, u_defensive) = normal_and_uniform(rng_key, dim, 2, dtype)
    z = component_draw(mixture, normal, u_component)
    if defensive == 0.0:
        return z
    return jnp.where(u_defensive < defensive, student_draw(normal, extra), z)


def component_draw(mixture: Mixture, normal: Array, uniform: Array) -> Array:
    """A draw of the Gaussian mixture alone, from d standard normal numbers and a uniform one."""
    cumulative = jnp.cumsum(jnp.exp(mixture.log_weights))
    k = jnp.argmax(uniform < cumulative / cumulative[-1])  # first such index; never of weight zero, as u < 1
    return mixture.means[k] + mixture.cholesky[k] @ normal


def normal_and_uniform(rng_key: Array, dim: int, num_uniform: int, dtype) -> tuple[Array, Array, Array]:
    """Standard normal numbers, (dim,) and (STUDENT_DEGREES,), and uniform ones in [0, 1), (num_uniform,).

    All come from one call of the generator, because each call takes a tenth of a second to compile.
    """
    lowest = jnp.nextafter(jnp.array(-1, dtype), jnp.array(0, dtype))
    u = jax.random.uniform(rng_key, (dim + STUDENT_DEGREES + num_uniform,), dtype, minval=lowest)
    normal, extra = jnp.split(jnp.sqrt(2).astype(dtype) * jax.scipy.special.erfinv(u[:-num_uniform]), [dim])
    return normal, extra, jnp.minimum((1 + u[-num_uniform:]) / 2, 1 - jnp.finfo(dtype).epsneg)


def student_draw(normal: Array, extra: Array) -> Array:
    """A draw of the Student part from d and STUDENT_DEGREES standard normal numbers."""
    return STUDENT_SCALE * normal * jnp.sqrt(STUDENT_DEGREES / jnp.sum(extra**2))


def student_log_prob(z: Array) -> Array:
    """Log density of the multivariate Student t with STUDENT_DEGREES degrees of freedom and scale STUDENT_SCALE."""
    dim = z.shape[-1]
    constant = (
        gammaln((STUDENT_DEGREES + dim) / 2)
        - gammaln(STUDENT_DEGREES / 2)
        - dim / 2 * jnp.log(STUDENT_DEGREES * jnp.pi * STUDENT_SCALE**2)
    )
    tail = (STUDENT_DEGREES + dim) / 2 * jnp.log1p(jnp.sum(z**2) / (STUDENT_DEGREES * STUDENT_SCALE**2))
    return constant.astype(z.dtype) - tail
