"""Online training: what is kept, what is skipped, what is remembered."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.targets import two_modes

import flowmcmc
from flowmcmc import losses
from flowmcmc.adaptation import reservoir, training

POSITIONS = jax.random.normal(jax.random.key(0), (20, 2)) + jnp.where(jnp.arange(20) % 2 == 0, 3.0, -3.0)[:, None]
FLOW = flowmcmc.real_nvp(POSITIONS[0], num_layers=2, hidden=8, num_components=1)


ADAM = optax.adam(1e-2)
remember = jax.jit(training.remember)


@cache
def learner(loss, optimizer):
    """One compiled burst for the tests that share a loss and an optimizer."""
    how = training.Training(FLOW, optimizer, loss, num_train_steps=20, batch_size=64, patience=3)

    def learn(state):
        return training.learn(jax.random.key(1), state, (None, None), two_modes, jnp.array(True), how)

    return jax.jit(learn)


def burst(state, loss=losses.forward_kl, optimizer=ADAM):
    return learner(loss, optimizer)(state)


@cache
def starter(optimizer, capacity):
    def start(positions):
        state = training.start(jax.random.key(0), positions, FLOW, optimizer, capacity)
        return training.refit(jax.random.key(0), state, FLOW, optimizer)

    return jax.jit(start)


def started(optimizer=ADAM):
    return starter(optimizer, 64)(POSITIONS)


def test_training_lowers_the_held_out_loss():
    key_many = jax.random.key(5)
    many = jnp.tile(POSITIONS, (20, 1)) + jax.random.normal(key_many, (400, 2))
    state = starter(ADAM, 512)(many)
    before = state.best_loss
    for _ in range(4):
        state, info = burst(state)
    assert info.heldout_loss < before - 0.1
    assert info.num_skipped == 0


def test_only_what_helps_on_held_out_states_is_kept():
    state = started()
    # training states unlike the held-out ones, on the other side, so that no step towards them helps
    away = -50.0 * np.sign(np.mean(np.asarray(state.heldout.positions)[: int(state.heldout.count)], axis=0))
    far = state.seen._replace(positions=state.seen.positions + away)
    worse, _ = burst(state._replace(seen=far))
    jax.tree.map(np.testing.assert_array_equal, worse.best, state.best)
    assert worse.num_stale == 1
    assert any(np.any(np.asarray(a) != b) for a, b in zip(jax.tree.leaves(worse.params), jax.tree.leaves(state.params)))


def test_training_rests_after_bursts_that_do_not_help_and_a_refit_wakes_it():
    state = started()
    tired = state._replace(num_stale=jnp.array(3))
    same, info = burst(tired)
    assert not info.is_training
    jax.tree.map(np.testing.assert_array_equal, same, tired)
    assert jax.jit(lambda state: training.refit(jax.random.key(2), state, FLOW, ADAM))(tired).num_stale == 0


@pytest.mark.parametrize("bad", ["value", "gradient"])
def test_a_loss_that_is_not_finite_is_skipped_and_counted(bad):
    def loss(rng_key, params, batch, flow, logdensity_fn):
        value = losses.forward_kl(rng_key, params, batch, flow, logdensity_fn)
        if bad == "value":
            return value + jnp.nan
        zero = 0.0 * jnp.sum(params.layers["last"]["bias"])
        return value + jnp.sqrt(zero)  # finite, its gradient is not

    state = started()
    after, info = burst(state, loss)
    assert info.num_skipped == 20
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_an_optimiser_that_explodes_never_reaches_the_proposals():
    state, info = burst(started(), optimizer=optax.scale(-jnp.inf))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.best.layers))
    assert info.num_skipped > 0


def test_weight_decay_leaves_the_fitted_parts_alone():
    optimizer = optax.adamw(1e-2, weight_decay=0.5)
    state = started(optimizer)
    after, _ = burst(state, optimizer=optimizer)
    for part in ("affine", "mixture"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after.params, part), getattr(state.params, part))


def test_every_fifth_chain_is_held_out_and_the_turn_passes_on():
    state = started()
    assert state.seen.count == 16 and state.heldout.count == 4
    np.testing.assert_allclose(state.heldout.positions[:4], POSITIONS[4::5])
    later = remember(jax.random.key(0), state, POSITIONS, jnp.array(1))
    np.testing.assert_allclose(later.heldout.positions[4:8], POSITIONS[3::5])


def test_a_few_chains_take_turns_by_rounds():
    state = training.start(jax.random.key(0), POSITIONS[:2], FLOW, optax.sgd(0.0), 64)
    for round in range(20):
        state = remember(jax.random.key(round), state, POSITIONS[:2], jnp.array(round))
    assert state.seen.count == 2 + 2 * 16 and state.heldout.count == 2 * 4


@pytest.mark.parametrize("num_chains", [2, 7])
def test_several_rounds_at_once_are_remembered_as_one_by_one(num_chains):
    state = training.start(jax.random.key(0), POSITIONS[:num_chains], FLOW, optax.sgd(0.0), 64)
    rounds = jax.random.normal(jax.random.key(1), (5, num_chains, 2))
    at_once = training.remember_rounds(jax.random.key(2), state, rounds, jnp.array(6), 3)
    for index in range(3):
        state = remember(jax.random.key(index), state, rounds[index], jnp.array(6 + index))
    for memory, expected in ((at_once.seen, state.seen), (at_once.heldout, state.heldout)):
        assert int(memory.count) == int(expected.count) <= reservoir.capacity(expected)
        assert np.array_equal(memory.positions, expected.positions)
