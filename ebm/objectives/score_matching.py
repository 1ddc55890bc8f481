r"""Score matching, exactly: fit grad log p to that of the data, by parts so that only the model's is needed.

    min_theta  E_data[ tr(Hess log p_theta(x)) + |grad log p_theta(x)|^2 / 2 ]

Log Z has no gradient in x and drops out. Hyvärinen, JMLR 6, 2005. Blind to the weights of modes that lie far apart.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ebm.method import Method, from_point_loss
from ebm.model import Model, check_model

__all__ = ["raveled_score", "score_matching"]

Array = jax.Array


def score_matching(model: Model) -> Method:
    """Exact score matching of Hyvärinen (2005): d Hessian-vector products at each data point.

    Time and memory grow with the number d of coordinates; from some tens of them on `sliced_score_matching` is cheaper.

    Parameters
    ----------
    model
        Energy and tilt, twice differentiable: with piecewise linear activations (leaky ReLU, the default of `mlp`)
        derivatives leave out the kinks and the loss has another minimum; pass ``activation=jax.nn.silu``. The tilt must
        not end where data are (`uniform` near its walls).

    Returns
    -------
    Method
        Its loss is a scalar in inverse squared units of the position; nothing is learned beside theta.

    Example
    -------
    >>> x = jnp.zeros(2)
    >>> method = score_matching(Model(*mlp(x, activation=jax.nn.silu), normal(x, scale=3.0)))
    """
    check_model(model)

    def point_loss(rng_key, theta, position):
        vector, score = raveled_score(model, theta, position)

        def curvature(direction):
            return direction @ jax.jvp(score, (vector,), (direction,))[1]

        trace = jnp.sum(jax.vmap(curvature)(jnp.eye(vector.size, dtype=vector.dtype)))
        return trace + 0.5 * jnp.sum(score(vector) ** 2)

    return from_point_loss(point_loss)


def raveled_score(model: Model, theta: Any, position: Any) -> tuple[Array, Callable[[Array], Array]]:
    """One position raveled, shape (d,), and grad log p as a function of such vectors."""
    vector, unravel = ravel_pytree(position)
    return vector, jax.grad(lambda x: model.logdensity(theta, unravel(x)))
