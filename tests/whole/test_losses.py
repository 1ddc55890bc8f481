"""Losses agree with numbers by hand, and mixtures of them are looked at when they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.targets import normal

import flowmcmc
from flowmcmc import losses
from flowmcmc.adaptation import training
from flowmcmc.losses import Batch

POSITIONS = jax.random.normal(jax.random.key(0), (20, 2)) + jnp.where(jnp.arange(20) % 2 == 0, 3.0, -3.0)[:, None]
FLOW = flowmcmc.real_nvp(POSITIONS[0], num_layers=2, hidden=8, num_components=1)


def started(optimizer=None):
    optimizer = optimizer or optax.adam(1e-2)
    state = training.start(jax.random.key(0), POSITIONS, FLOW, optimizer, 64)
    return training.refit(jax.random.key(0), state, FLOW, optimizer)


def test_losses_agree_with_numbers_by_hand():
    params = jax.jit(lambda: started().best)()
    pool = POSITIONS.reshape(4, 5, 2)
    log_weights = np.log(np.arange(1.0, 6.0)) * np.ones((4, 1))
    batch = Batch(POSITIONS, pool, log_weights)
    log_q = np.asarray(jax.jit(jax.vmap(FLOW.log_prob, (None, 0)))(params, POSITIONS))
    mixed = losses.mixture((0.6, losses.forward_kl), (0.4, losses.pool_forward_kl))

    @jax.jit
    def values(params, batch):
        found = losses.forward_kl, losses.pool_forward_kl, mixed
        return [loss(jax.random.key(0), params, batch, FLOW, normal) for loss in found]

    forward, pooled, both = values(params, batch)
    np.testing.assert_allclose(forward, -log_q.mean(), rtol=1e-5)
    by_hand = -(log_q.reshape(4, 5) * np.arange(1, 6) / 15).sum(1).mean()
    np.testing.assert_allclose(pooled, by_hand, rtol=1e-5)
    np.testing.assert_allclose(both, 0.6 * forward + 0.4 * pooled, rtol=1e-5)


def test_reverse_kl_is_zero_when_the_flow_is_the_target():
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), defensive=0.0)

    @jax.jit
    def value_at_start():
        params = flow.init(jax.random.key(0), jnp.zeros(2))
        return losses.reverse_kl(jax.random.key(1), params, Batch(POSITIONS, None, None), flow, normal)

    value = value_at_start()
    np.testing.assert_allclose(value, -jnp.log(2 * jnp.pi), rtol=1e-5)


STARTS = np.zeros((4, 2), np.float32)
BAD_MIXTURES = {
    "a name for a loss": (((1.0, "x"),), TypeError, "the loss of a mixture must be a function.*got 'x'"),
    "no pair": ((flowmcmc.losses.forward_kl,), TypeError, r"pairs such as .*got a function \(forward_kl\)"),
    "three": (((1.0, 2.0, flowmcmc.losses.forward_kl),), TypeError, "pairs such as"),
    "a name for a number": ((("x", flowmcmc.losses.forward_kl),), TypeError, "must be one number, got 'x'"),
    "the other way round": (((flowmcmc.losses.forward_kl, 1.0),), TypeError, "must be one number, got a function"),
    "many numbers": (((jnp.ones(2), flowmcmc.losses.forward_kl),), TypeError, "must be one number"),
    "NaN": (((np.nan, flowmcmc.losses.forward_kl),), ValueError, "must be finite, got nan"),
    "nothing": ((), ValueError, "at least one"),
}


@pytest.mark.parametrize("name", BAD_MIXTURES)
def test_bad_mixtures_of_losses_are_refused(name):
    terms, error, words = BAD_MIXTURES[name]
    with pytest.raises(error, match=words):
        flowmcmc.losses.mixture(*terms)


@pytest.mark.parametrize("number", [1, 0.5, np.float32(0.5), jnp.array(0.5)])
def test_any_number_is_a_coefficient(number):
    flowmcmc.losses.mixture((number, flowmcmc.losses.forward_kl), [0.5, flowmcmc.losses.reverse_kl])


def test_a_coefficient_may_be_traced():
    def value(coefficient):
        flowmcmc.losses.mixture((coefficient, flowmcmc.losses.forward_kl))
        return coefficient

    assert jax.jit(value)(0.5) == 0.5


def test_pool_loss_needs_pools():
    with pytest.raises(ValueError, match="flow_kernel"):
        flowmcmc.sample(0, normal, STARTS, loss=flowmcmc.losses.pool_forward_kl, progress_bar=False)
