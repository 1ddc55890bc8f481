"""A base pushed forward by a map: densities, the way back, and where gradients flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from flowmcmc.flows.pushforward import Base, Transport, check_options, pushforward

POSITION = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
PARAMS = {"shift": jnp.array([0.5, -1.0, 2.0]), "log_scale": jnp.array([0.1, -0.3, 0.7])}


def shifted():
    """Normals, shifted and scaled; only the shift is for gradients."""
    base = Base(lambda key, params: jax.random.normal(key, (3,)), lambda params, z: jnp.sum(norm.logpdf(z)))
    total = lambda params: jnp.sum(params["log_scale"])
    transport = Transport(
        lambda params, z: (params["shift"] + jnp.exp(params["log_scale"]) * z, total(params)),
        lambda params, x: ((x - params["shift"]) * jnp.exp(-params["log_scale"]), -total(params)),
    )
    return pushforward(
        check_options(POSITION, 0.0, {}),
        base,
        transport,
        lambda rng_key, params, rows, weights, heldout, heldout_weights: params | {"shift": jnp.mean(rows, axis=0)},
        init=lambda rng_key: PARAMS,
        trainable=lambda params: {"shift": True, "log_scale": False},
    )


def test_draws_and_density_agree_with_the_normal_that_it_is():
    flow = shifted()
    position, log_q = flow.sample_and_log_prob(jax.random.key(0), PARAMS)
    assert jax.tree.map(jnp.shape, position) == {"a": (), "b": (2,)}
    x = np.append(position["a"], position["b"])
    expected = norm.logpdf(x, PARAMS["shift"], jnp.exp(PARAMS["log_scale"])).sum()
    np.testing.assert_allclose([log_q, flow.log_prob(PARAMS, position)], expected, rtol=1e-10)
    z, _ = flow.bijection.inverse(PARAMS, position)
    jax.tree.map(np.testing.assert_allclose, flow.bijection.forward(PARAMS, z)[0], position)


def test_gradients_reach_what_is_trainable_and_fit_sees_rows():
    flow = shifted()
    gradient = jax.grad(flow.log_prob)(PARAMS, POSITION)
    assert gradient["shift"].all() and not gradient["log_scale"].any()
    positions = {"a": jnp.arange(4.0), "b": jnp.ones((4, 2))}
    fitted = flow.fit(jax.random.key(0), PARAMS, positions, jnp.ones(4), positions, jnp.ones(4))
    np.testing.assert_allclose(fitted["shift"], [1.5, 1.0, 1.0])


def test_what_no_flow_can_be_built_for_is_refused():
    with pytest.raises(TypeError, match=r"\['n'\].*int"):
        check_options({"n": jnp.zeros(2, int)}, 0.0, {})
    with pytest.raises(ValueError, match="empty"):
        check_options(jnp.zeros(0), 0.0, {})
    with pytest.raises(ValueError, match="defensive"):
        check_options(POSITION, 1.0, {})
    with pytest.raises(ValueError, match="num_layers"):
        check_options(POSITION, 0.0, {"num_layers": 0})
