r"""Denoising score matching: the score at a noisy point shows the way back to the data.

    min_theta  E_data E_z[ |sigma grad log p_theta(x + sigma z) + z|^2 / 2 ],   z ~ N(0, I)

Its minimum is the density of the data convolved with N(0, sigma^2 I), NOT that of the data. Vincent, Neural Computation
23, 2011; times sigma^2, which keeps the loss of order one and moves no minimum.
"""

import jax
import jax.numpy as jnp

from ebm.method import Method, from_point_loss
from ebm.model import Model
from ebm.objectives.score_matching import raveled_score

__all__ = ["denoising_score_matching"]


def denoising_score_matching(model: Model, *, noise_scale: float) -> Method:
    """Learn the data blurred by `noise_scale`: first derivatives in x only, so cheap in any dimension.

    Reference: Vincent (2011).

    Parameters
    ----------
    model
        Energy and tilt, with a gradient that has no jumps (``activation=jax.nn.silu``, see `score_matching`). What it
        learns is the blurred density: each variance is that of the data plus ``noise_scale**2``.
    noise_scale
        sigma, in the data's units and one number for all coordinates. Smaller blurs less; but the loss stays of order
        one while what it says about the energy shrinks as sigma^2, so the gradient gets noisier.

    Returns
    -------
    Method
        Its loss is a scalar without units, of order d, the number of coordinates; nothing is learned beside theta.

    Raises
    ------
    ValueError
        If `noise_scale` is not positive.

    Example
    -------
    >>> x = jnp.zeros(2)
    >>> model = Model(*mlp(x, activation=jax.nn.silu), normal(x, scale=3.0))
    >>> method = denoising_score_matching(model, noise_scale=0.2)
    """
    if not noise_scale > 0:
        raise ValueError(f"noise_scale must be positive, got {noise_scale}; without noise use score_matching.")

    def point_loss(rng_key, theta, position):
        vector, score = raveled_score(model, theta, position)
        z = jax.random.normal(rng_key, vector.shape, vector.dtype)
        return 0.5 * jnp.sum((noise_scale * score(vector + noise_scale * z) + z) ** 2)

    return from_point_loss(point_loss)
