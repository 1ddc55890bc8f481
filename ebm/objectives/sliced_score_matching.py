r"""Sliced score matching: the trace of exact score matching along random directions.

    min_theta  E_data E_v[ v^T Hess log p_theta(x) v + |grad log p_theta(x)|^2 / 2 ],   v_i = +-1

The form with reduced variance (SSM-VR) of Song et al., arXiv 1905.07088: E[v v^T] = I, so the second term needs no
projection, and the expectation is the loss of `score_matching` (Hutchinson's trace).
"""

import jax
import jax.numpy as jnp

from ebm.method import Method, from_point_loss
from ebm.model import Model
from ebm.objectives.score_matching import raveled_score

__all__ = ["sliced_score_matching"]


def sliced_score_matching(model: Model, *, num_projections: int = 1) -> Method:
    """Score matching with `num_projections` Hessian-vector products at each data point, whatever the dimension.

    Reference: Song et al., arXiv 1905.07088 (the form with reduced variance).

    Parameters
    ----------
    model
        Energy and tilt, twice differentiable, see `score_matching`.
    num_projections
        Fresh directions for each data point; signs, for which diagonal Hessians leave no variance at all.

    Returns
    -------
    Method
        Its loss has the expectation of that of `score_matching`; nothing is learned beside theta.

    Raises
    ------
    ValueError
        If `num_projections` is not positive.

    Example
    -------
    >>> x = jnp.zeros(64)
    >>> method = sliced_score_matching(Model(*mlp(x, activation=jax.nn.silu), normal(x, scale=3.0)))
    """
    if num_projections < 1:
        raise ValueError(f"num_projections must be at least 1, got {num_projections}.")

    def point_loss(rng_key, theta, position):
        vector, score = raveled_score(model, theta, position)

        def curvature(direction):
            return direction @ jax.jvp(score, (vector,), (direction,))[1]

        directions = jax.random.rademacher(rng_key, (num_projections, vector.size), vector.dtype)
        return jnp.mean(jax.vmap(curvature)(directions)) + 0.5 * jnp.sum(score(vector) ** 2)

    return from_point_loss(point_loss)
