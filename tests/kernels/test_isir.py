"""Iterated sampling importance resampling, on a space of four points where the whole transition matrix is known."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flowmcmc import Flow, imh, isir

P = np.array([0.1, 0.2, 0.3, 0.4])
Q = np.array([0.45, 0.1, 0.25, 0.2])
W = P / Q
NUM_DRAWS = 40_000


@pytest.fixture(autouse=True)
def no_silent_broadcasting():
    with jax.numpy_rank_promotion("raise"):
        yield


DISCRETE = Flow(
    init=lambda key, position: (),
    sample_and_log_prob=lambda key, params: draw(key),
    log_prob=lambda params, x: jnp.log(Q)[x.astype(int)],
)


def draw(key):
    index = jax.random.categorical(key, jnp.log(Q))
    return index.astype(float), jnp.log(Q)[index]


def logdensity(x):
    return jnp.log(7 * P)[x.astype(int)]


def isir_matrix(num_proposals, keep_current=True, weights=W):
    """P(x, y), summed over every pool that N draws can give."""
    matrix = np.zeros((4, 4))
    for x in range(4):
        for fresh in product(range(4), repeat=num_proposals):
            pool = np.array((x, *fresh) if keep_current else fresh)
            chosen = weights[pool] / weights[pool].sum()
            np.add.at(matrix[x], pool, np.prod(Q[list(fresh)]) * chosen)
    return matrix


def metropolis_matrix():
    off = Q[None] * np.minimum(1, W[None] / W[:, None])
    np.fill_diagonal(off, 0)
    return off + np.diag(1 - off.sum(1))


def transition_counts(kernel):
    """Counts of one step of `kernel` from each of the four points."""
    keys = jax.random.split(jax.random.key(21), (4, NUM_DRAWS))
    starts = jax.vmap(lambda x: kernel.init(x))(jnp.arange(4.0))
    states, info = jax.jit(jax.vmap(jax.vmap(kernel.step, (0, None))))(keys, starts)
    return np.stack([np.bincount(row.astype(int), minlength=4) for row in np.asarray(states.position)]), info


def p_value(counts, matrix):
    expected = NUM_DRAWS * matrix
    statistic = ((counts - expected) ** 2 / np.where(expected > 0, expected, 1e-300)).sum()
    return stats.chi2(12).sf(statistic)


@pytest.mark.parametrize("num_proposals", [1, 2, 3])
def test_theory_is_reversible_and_invariant(num_proposals):
    matrix = isir_matrix(num_proposals)
    assert np.allclose(matrix.sum(1), 1, atol=1e-14)
    assert np.allclose(P @ matrix, P, atol=1e-14)
    assert np.allclose(P[:, None] * matrix, (P[:, None] * matrix).T, atol=1e-14)
    for wrong in (isir_matrix(num_proposals, keep_current=False), isir_matrix(num_proposals, weights=P)):
        assert not np.allclose(P @ wrong, P, atol=1e-3)


@pytest.mark.parametrize("num_proposals", [1, 2, 3])
def test_kernel_has_the_enumerated_transition_matrix(num_proposals):
    counts, info = transition_counts(isir(logdensity, DISCRETE, (), num_proposals=num_proposals))
    assert p_value(counts, isir_matrix(num_proposals)) > 1e-4
    # the same counts tell it from its neighbours and from broken kernels
    others = [
        isir_matrix(num_proposals % 3 + 1),
        isir_matrix(num_proposals, keep_current=False),
        isir_matrix(num_proposals, weights=P),
        isir_matrix(num_proposals, weights=Q),
        metropolis_matrix(),
    ]
    assert max(p_value(counts, other) for other in others) < 1e-20
    # leaving a point is announced with its true probability
    weights = np.exp(np.asarray(info.proposal_log_weight))
    assert np.allclose(info.acceptance_rate, 1 - weights[..., 0] / weights.sum(-1), rtol=1e-10)
    assert np.allclose(weights, 7 * W[np.asarray(info.proposal).astype(int)], rtol=1e-12)
    assert np.array_equal(info.proposal[..., 0], np.broadcast_to(np.arange(4.0)[:, None], (4, NUM_DRAWS)))
    left = np.asarray(info.is_accepted).sum()
    rate = np.asarray(info.acceptance_rate)
    assert abs(left - rate.sum()) < 4.5 * np.sqrt((rate * (1 - rate)).sum())


def test_one_proposal_is_barker_and_imh_is_metropolis():
    barker = Q[None] * W[None] / (W[None] + W[:, None])
    off_diagonal = ~np.eye(4, dtype=bool)
    assert np.allclose(isir_matrix(1)[off_diagonal], barker[off_diagonal], atol=1e-14)
    counts, _ = transition_counts(imh(logdensity, DISCRETE, ()))
    assert p_value(counts, metropolis_matrix()) > 1e-4
    assert p_value(counts, isir_matrix(1)) < 1e-20
    assert np.allclose(P @ metropolis_matrix(), P, atol=1e-14)


def test_cached_weight_is_that_of_the_position():
    kernel = isir(logdensity, DISCRETE, (), num_proposals=3)
    step = jax.jit(kernel.step)
    state = kernel.init(jnp.array(2.0))
    for index in range(20):
        state, _ = step(jax.random.key(index), state)
        assert state.logdensity == pytest.approx(float(logdensity(state.position)))
        assert state.log_weight == pytest.approx(np.log(7 * W[int(state.position)]))


@pytest.mark.parametrize(("value", "num_invalid"), [(jnp.nan, 1), (jnp.inf, 1), (-jnp.inf, 0)])
def test_bad_densities_are_never_chosen(value, num_invalid):
    kernel = isir(lambda x: jnp.where(x < 2, 0.0, value), DISCRETE, (), num_proposals=4)
    keys = jax.random.split(jax.random.key(0), 2000)
    state, info = jax.jit(jax.vmap(kernel.step, (0, None)))(keys, kernel.init(jnp.array(0.0)))
    assert (state.position < 2).all()
    assert np.array_equal(info.num_invalid, num_invalid * (info.proposal[:, 1:] >= 2).sum(1))
    assert np.isfinite(info.logdensity).all()
    # from outside: left whenever anything valid is drawn, and kept for a pool without
    state, info = jax.jit(jax.vmap(kernel.step, (0, None)))(keys, kernel.init(jnp.array(3.0)))
    has_valid = (info.proposal[:, 1:] < 2).any(1)
    assert 0 < (~has_valid).sum() < 2000
    assert np.array_equal(info.is_accepted, has_valid)
    assert np.array_equal(state.position == 3, ~has_valid)
    # a rate of 0 or 1, never NaN
    assert np.array_equal(info.acceptance_rate, has_valid.astype(float))


def test_where_the_flow_has_no_density_the_chain_waits():
    gap = DISCRETE._replace(log_prob=lambda params, x: jnp.where(x == 4, -jnp.inf, 0.0))
    kernel = isir(lambda x: jnp.zeros(()), gap, (), num_proposals=3)
    state, info = kernel.step(jax.random.key(0), kernel.init(jnp.array(4.0)))
    assert state.position == 4
    assert info.acceptance_rate == 0


def test_num_proposals_must_be_positive():
    with pytest.raises(ValueError, match="num_proposals"):
        isir(logdensity, DISCRETE, (), num_proposals=0)
