r"""Noise-contrastive estimation: tell data from draws of a known density, with log Z learned beside theta.

    min_{theta, c}  E_data[softplus(-h(x))] + nu E_noise[softplus(h(y))],
    h(x) = log rho(x) - E_theta(x) - c - log q(x) - log nu

h is the log odds that a point is data when nu draws of the noise q come with each; at the minimum c = log Z_theta, and
the model is the density of the data. Gutmann and Hyvärinen, AISTATS 2010.
"""

import jax
import jax.numpy as jnp

from ebm.method import Method, no_info
from ebm.model import Model, check_has_density, check_model
from flowmcmc import Density

__all__ = ["initial_log_z", "mixed", "nce"]

Array = jax.Array


def nce(model: Model, noise: Density, *, noise_ratio: int = 1) -> Method:
    """Noise-contrastive estimation; `extra` is log Z, a scalar that starts at 0, the truth where the energy is zero.

    Reference: Gutmann and Hyvärinen (2010).

    Parameters
    ----------
    model
        Energy and tilt.
    noise
        q: normalised, and positive wherever the data or the model are. The nearer to the data, the lower the variance:
        a fitted flow (`tilted`), or half of it and half something broad (`mixed`).
    noise_ratio
        nu, fresh draws of the noise for each data point.

    Returns
    -------
    Method
        Its loss is a scalar in nats; `MethodInfo` reports the learned log Z.

    Raises
    ------
    ValueError
        If `noise_ratio` is not a positive whole number.

    Example
    -------
    >>> x = jnp.zeros(2)
    >>> method = nce(Model(*mlp(x), normal(x, scale=3.0)), normal(x, scale=2.0), noise_ratio=2)
    """
    check_model(model)
    check_has_density("noise", noise)
    if noise_ratio < 1 or noise_ratio != int(noise_ratio):
        raise ValueError(f"noise_ratio must be a whole number, at least 1 draw for each data point, got {noise_ratio}.")
    noise_ratio = int(noise_ratio)

    def init(rng_key, theta, data):
        return initial_log_z(model, theta, data), ()

    def loss(rng_key, theta, log_z, state, batch):
        def log_odds(x):
            return model.logdensity(theta, x) - log_z - noise.log_prob(x) - jnp.log(noise_ratio)

        num_noise = noise_ratio * jax.tree.leaves(batch)[0].shape[0]
        draws = jax.lax.stop_gradient(jax.vmap(noise.sample)(jax.random.split(rng_key, num_noise)))
        on_data = jax.nn.softplus(-jax.vmap(log_odds)(batch))
        on_noise = jax.nn.softplus(jax.vmap(log_odds)(draws))
        info = no_info()._replace(log_z=jax.lax.stop_gradient(log_z))
        return jnp.mean(on_data) + noise_ratio * jnp.mean(on_noise), (state, info)

    return Method(init, loss)


def mixed(noise_a: Density, noise_b: Density, *, share: float = 0.5) -> Density:
    """The mixture share * a + (1 - share) * b, say of a flow near the data and of a broad normal that covers the rest.

    Parameters
    ----------
    noise_a, noise_b
        Normalised densities over the same positions.
    share
        Of draws that come from `noise_a`.

    Returns
    -------
    Density
        ``log_prob(position)``, a scalar in nats, and ``sample(rng_key)``, one position.

    Raises
    ------
    ValueError
        If `share` does not lie strictly between 0 and 1.

    Example
    -------
    >>> noise = mixed(normal(jnp.zeros(2)), normal(jnp.zeros(2), scale=4.0))
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie strictly between 0 and 1, got {share}: for one noise alone pass it to nce.")

    def log_prob(position):
        return jnp.logaddexp(
            jnp.log(share) + noise_a.log_prob(position), jnp.log1p(-share) + noise_b.log_prob(position)
        )

    def sample(rng_key):
        key_choice, key_draw = jax.random.split(rng_key)
        is_a = jax.random.bernoulli(key_choice, share)
        draws = noise_a.sample(key_draw), noise_b.sample(key_draw)  # one of them is used: they may share a key
        return jax.tree.map(lambda a, b: jnp.where(is_a, a, b), *draws)

    return Density(log_prob, sample)


def initial_log_z(model: Model, theta, data) -> Array:
    """The scalar 0 in the dtype of the log density."""
    position = jax.tree.map(lambda leaf: leaf[0], data)
    return jnp.zeros((), jax.eval_shape(model.logdensity, theta, position).dtype)
