"""A funnel is found, and followed where no state was."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from support.curved import misfit, neck, neck_log_prob

from flowmcmc import funnel_mixture, gaussian_mixture


def test_a_funnel_is_fitted_and_goes_on_where_no_state_was():
    rows = jax.vmap(neck)(jax.random.split(jax.random.key(3), 40_000))
    seen, rest = rows[rows[:, 1] > -6], np.asarray(rows[rows[:, 1] <= -8])
    train, heldout, fresh = seen[:30_000], seen[30_000:31_000], np.asarray(seen[31_000:])
    assert len(rest) > 100 and rest[:, 1].min() < -11

    both = np.concatenate([fresh, rest])
    params, gap = misfit(funnel_mixture(rows[0]), train, heldout, neck_log_prob, both)
    near, far = gap[: len(fresh)], gap[len(fresh) :]
    assert int(params.warp.driver) == 1
    assert np.abs(near).mean() < 0.2
    # further in than any state it knows all but how much mass there is: that has a heavy tail of weight 1/40
    tail = np.log(40) + stats.norm.logpdf(rest[:, 1], 0, 3) - stats.t(3, 0, 2 * 3).logpdf(rest[:, 1])
    assert np.abs(far - tail).mean() < 3
    assert np.abs(far).mean() < 0.5  # and here that too: v is normal, as the mixture takes it to be
    _, far = misfit(gaussian_mixture(rows[0], num_components=8), train, heldout, neck_log_prob, rest)
    assert far.mean() > 10


def test_a_hierarchy_is_followed_to_where_a_digit_of_its_coefficients_would_show():
    rows = jax.vmap(partial(neck, dim=12))(jax.random.split(jax.random.key(3), 31_000))
    key_m, key_z = jax.random.split(jax.random.key(4))
    m, z = jax.random.normal(key_m, (200,)), jax.random.normal(key_z, (200, 10))
    deep = np.column_stack([m, np.full(200, -28.0), m[:, None] + np.exp(-14.0) * z])  # no state is below -13
    # in units of their own, about other places: coefficients 1 and slopes 1/2, whatever the standard deviations are
    scale, loc = (jnp.full(12, value).at[1].set(other) for value, other in ((2.0, 1.0), (3.0, 0.5)))
    truth = lambda x: neck_log_prob((x - np.asarray(loc)) / np.asarray(scale)) - 11 * np.log(2)
    fit = lambda train: misfit(funnel_mixture(rows[0]), train, loc + scale * rows[30_000:], truth, loc + scale * deep)

    params, far = fit(loc + scale * rows[:30_000])
    assert int(params.warp.driver) == 1  # though a few rows of the mouth outweigh all others in every square
    # it knows all but how much mass there is: that has a heavy tail of weight 1/40
    tail = np.log(40) + stats.norm.logpdf(deep[:, 1], 0, 3) - stats.t(3, 0, 2 * 3).logpdf(deep[:, 1])
    assert np.abs(far - tail).mean() < 1
    # chains wait: of six states one tells something
    params, _ = fit(jnp.repeat(loc + scale * rows[:5000], 6, axis=0))
    assert np.allclose(params.warp.slopes[2:] / params.scale[1], 0.5, atol=1e-12)


def test_coefficients_that_are_no_whole_numbers_stay_as_they_are():
    def draw(key):
        v, m, *z = jax.random.normal(key, (5,))
        slopes = jnp.array([0.5, 0.3, 0.7])
        return jnp.concatenate(
            [jnp.array([m, 3 * v]), jnp.array([0.4, 1.5, -0.6]) * m + 2 + jnp.exp(3 * v * slopes) * jnp.array(z)]
        )

    rows = jax.vmap(draw)(jax.random.split(jax.random.key(3), 30_000))
    ones = jnp.ones(len(rows))
    flow = funnel_mixture(rows[0])
    warp, scale = jax.jit(
        lambda: flow.fit(jax.random.key(1), flow.init(jax.random.key(0), rows[0]), rows, ones, rows, ones)
    )()[2:0:-1]
    regressions = warp.inverse * scale[:, None] / scale[None]
    assert np.allclose(regressions[2:, 0], [-0.4, -1.5, 0.6], atol=0.02)
    assert np.allclose(warp.slopes[2:] / scale[1], [0.5, 0.3, 0.7], atol=0.02)


def test_a_funnel_beside_correlated_coordinates_is_found():
    def draw(key):
        v, *z = jax.random.normal(key, (16,))
        return jnp.concatenate([jnp.array([3 * v]), jnp.exp(1.5 * v) * jnp.array(z[:5]), mixing @ jnp.array(z[5:])])

    mixing = jnp.linalg.cholesky(0.9 * jnp.ones((10, 10)) + 0.1 * jnp.eye(10))
    rows = jax.vmap(draw)(jax.random.split(jax.random.key(3), 9_000))
    log_det = 2 * jnp.log(jnp.diagonal(mixing)).sum()

    def truth(x):
        others = x[:, 6:] @ np.linalg.inv(mixing).T
        normal = stats.norm.logpdf(others).sum(1) - log_det / 2
        return stats.norm(0, 3).logpdf(x[:, 0]) + stats.norm(0, np.exp(x[:, :1] / 2)).logpdf(x[:, 1:6]).sum(1) + normal

    # where x[0] is low the others hardly vary, and say nothing of how the correlated ones depend on them elsewhere
    params, gap = misfit(funnel_mixture(rows[0]), rows[:7000], rows[7000:8000], truth, rows[8000:])
    assert int(params.warp.driver) == 0
    assert np.allclose(params.warp.slopes[1:6] / params.scale[0], 0.5) and not params.warp.slopes[6:].any()
    assert np.abs(gap).mean() < 0.3


def test_few_states_that_end_early_do_not_make_a_funnel_flat():
    rows = jax.vmap(partial(neck, dim=10))(jax.random.split(jax.random.key(5), 12_000))
    rows = rows[rows[:, 1] > -3.6]
    params, gap = misfit(funnel_mixture(rows[0]), rows[:1600], rows[1600:2100], neck_log_prob, rows[2100:])
    # of the tenth of these that are furthest in, one row in ten counts: sixteen, which could be flat
    assert np.all(params.warp.slopes[2:] / params.scale[1] > 0.3)
    assert np.median(np.abs(gap)) < 1
