"""log Z from flow and chains: errors that hold over many seeds, and a lost mode that is never a bare number."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import flowmcmc
from flowmcmc import Flow
from flowmcmc.reading.evidence import LogZ, log_z_bridge, log_z_importance

NUM_SEEDS = 100
LOG_Z = 1.7


def mixture_log_prob(params, x):
    means, scales, shares = params
    return jax.nn.logsumexp(jnp.log(shares) + jnp.sum(norm.logpdf(x, means, scales), axis=1))


def mixture_sample_and_log_prob(rng_key, params):
    means, scales, shares = params
    key_component, key_normal = jax.random.split(rng_key)
    k = jax.random.categorical(key_component, jnp.log(shares))
    x = means[k] + scales[k] * jax.random.normal(key_normal, means[k].shape)
    return x, mixture_log_prob(params, x)


MIXTURE = Flow(lambda rng_key, position: None, mixture_sample_and_log_prob, mixture_log_prob)
TRUTH = tuple(map(jnp.asarray, ([[-2.0, 0.0], [2.0, 1.0]], [[0.7, 1.0], [1.0, 0.5]], [0.4, 0.6])))
NEARBY = (TRUTH[0] + 0.15, 1.15 * TRUTH[1], jnp.array([0.55, 0.45]))
APART = (3 * TRUTH[0], TRUTH[1], jnp.array([0.5, 0.5]))
ONE_MODE = (APART[0][:1], 1.1 * APART[1][:1], jnp.ones(1))


def logdensity(x):
    return mixture_log_prob(TRUTH, x) + LOG_Z


def apart_logdensity(x):
    return mixture_log_prob(APART, x) + LOG_Z


@jax.jit
def exact_draws(rng_key, params):
    keys = jax.random.split(rng_key, 4000).reshape(4, 1000)
    return jax.vmap(jax.vmap(lambda key: mixture_sample_and_log_prob(key, params)[0]))(keys)


def z_scores(estimate):
    found = [estimate(seed) for seed in range(NUM_SEEDS)]
    assert not any(one.problems for one in found)
    assert all(one.bracket[0] < one.log_z < one.bracket[1] for one in found)
    return np.array([(one.log_z - LOG_Z) / one.error for one in found])


def test_importance_has_honest_errors():
    z = z_scores(lambda seed: log_z_importance(seed, logdensity, MIXTURE, NEARBY, num_draws=2000))
    assert abs(z.mean()) < 0.4 and 0.8 < z.std() < 1.25


def test_bridge_has_honest_errors():
    draws = jax.vmap(exact_draws, (0, None))(jax.random.split(jax.random.key(1), NUM_SEEDS), TRUTH)
    z = z_scores(lambda seed: log_z_bridge(seed, logdensity, MIXTURE, NEARBY, draws[seed], num_draws=2000))
    assert abs(z.mean()) < 0.4 and 0.8 < z.std() < 1.25


# --- chains with memory ----------------------------------------------------------------------------------------------


PERSISTENCE = 0.9


def wide_sample_and_log_prob(rng_key, scale):
    x = 1.0 + scale * jax.random.normal(rng_key)
    return {"x": x}, norm.logpdf(x, 1.0, scale)


WIDE = Flow(lambda rng_key, x: None, wide_sample_and_log_prob, lambda scale, x: norm.logpdf(x["x"], 1.0, scale))


def gaussian_logdensity(position):
    return norm.logpdf(position["x"]) + LOG_Z


@jax.jit
def autoregressive_draws(rng_key):
    """Chains (4, 1000) at rest in N(0, 1), worth a nineteenth of their number."""

    def chain(rng_key):
        steps = jax.random.normal(rng_key, 1001)
        noise = np.sqrt(1 - PERSISTENCE**2)
        return jax.lax.scan(lambda x, step: (PERSISTENCE * x + noise * step, x), steps[0], steps[1:])[1]

    return {"x": jax.vmap(chain)(jax.random.split(rng_key, 4))}


def test_bridge_counts_autocorrelated_draws_at_their_worth():
    draws = jax.vmap(autoregressive_draws)(jax.random.split(jax.random.key(2), NUM_SEEDS))["x"]
    z = z_scores(lambda seed: log_z_bridge(seed, gaussian_logdensity, WIDE, 1.3, {"x": draws[seed]}, num_draws=20_000))
    assert abs(z.mean()) < 0.4 and 0.75 < z.std() < 1.3


def test_a_wide_flow_raises_no_alarm():
    """At this width 1 / weight has no variance on the chains: the reverse estimate fails, the bridge does not."""
    draws = jax.random.normal(jax.random.key(6), (50, 1, 1000))
    found = [log_z_bridge(seed, gaussian_logdensity, WIDE, 2.0, {"x": draws[seed]}) for seed in range(50)]
    assert not any(one.problems for one in found)


# --- what must not look fine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ["importance", "bridge"])
def test_a_lost_mode_is_not_a_bare_number(estimate):
    draws = exact_draws(jax.random.key(3), APART)
    blind = log_z_importance(4, apart_logdensity, MIXTURE, ONE_MODE)
    assert abs(blind.log_z - (LOG_Z - np.log(2))) < 4 * blind.error < 0.1  # wrong, and sure of it
    assert not blind.is_checked
    if estimate == "importance":
        found = log_z_importance(4, apart_logdensity, MIXTURE, ONE_MODE, draws=draws)
        assert found.log_z == blind.log_z
    else:
        found = log_z_bridge(4, apart_logdensity, MIXTURE, ONE_MODE, draws)
        assert abs(found.log_z - LOG_Z) < 4 * found.error < 0.2
    assert found.is_checked and "mode is probably lost" in found.problems[0]
    assert found.bracket[0] < LOG_Z - np.log(2) and found.bracket[1] > LOG_Z
    assert "log Z =" not in str(found) and f"[{found.bracket[0]:.3f}, {found.bracket[1]:.3f}]" in str(found)


def test_chains_stuck_in_modes_cannot_vouch_for_the_flow():
    draws = exact_draws(jax.random.key(3), APART)
    order = jnp.argsort(draws[..., 0].ravel())
    stuck = draws.reshape(-1, 2)[order].reshape(draws.shape)  # each chain sees one mode
    found = log_z_bridge(4, apart_logdensity, MIXTURE, ONE_MODE, stuck)
    assert found.problems and "log Z =" not in str(found)


def test_chains_that_missed_a_mode_are_named():
    one = exact_draws(jax.random.key(5), (APART[0][:1], APART[1][:1], jnp.ones(1)))
    found = log_z_bridge(4, apart_logdensity, MIXTURE, (APART[0], APART[1], jnp.array([0.85, 0.15])), one)
    assert "chains cover less" in found.problems[0]


def test_a_flow_far_too_narrow_is_named():
    narrow = (TRUTH[0], 0.15 * TRUTH[1], TRUTH[2])
    found = log_z_importance(4, logdensity, MIXTURE, narrow, num_draws=2000)
    assert found.ess < 0.05 and found.pareto_k > 0.7 and "Pareto k" in found.problems[0]


def test_invalid_weights_are_counted_and_left_out():
    bad = lambda x: jnp.where(x[0] > 3.5, jnp.nan, jnp.where(x[0] < -3.5, jnp.inf, logdensity(x)))
    draws = exact_draws(jax.random.key(3), TRUTH)
    found = log_z_bridge(4, bad, MIXTURE, NEARBY, draws)
    assert "flow draws have log weight NaN" in found.problems[0] and "draws have no finite" in found.problems[1]
    assert abs(found.log_z - LOG_Z) < 4 * found.error  # what both ends leave out cancels
    nowhere = log_z_bridge(4, lambda x: -jnp.inf, MIXTURE, NEARBY, draws)
    assert nowhere.log_z == -np.inf and nowhere.error == np.inf and "zero at every flow draw" in str(nowhere)


@pytest.mark.parametrize("value, is_fine", [(jnp.nan, True), (jnp.inf, False)])
def test_a_rare_nan_is_counted_and_said_but_no_reason_to_refuse(value, is_fine):
    """Some 20 draws in 10,000 lie beyond 5.2: as many of mean weight would move log Z by half its error."""
    bad = lambda x: jnp.where(x[0] > 5.2, value, logdensity(x))
    found = log_z_importance(4, bad, MIXTURE, NEARBY)
    assert 0 < found.num_invalid < 40 and abs(found.log_z - LOG_Z) < 4 * found.error
    assert (not found.problems) == is_fine
    assert (f"({found.num_invalid} draws with NaN counted" in str(found)) == is_fine


def test_a_perfect_flow_is_exact_and_prints_a_number():
    found = log_z_bridge(4, logdensity, MIXTURE, TRUTH, exact_draws(jax.random.key(3), TRUTH))
    assert abs(found.log_z - LOG_Z) < 1e-9 and found.ess > 1 - 1e-9 and str(found).startswith("log Z = 1.700 +- 0.000")


def test_the_flows_own_estimate_is_shown_beside_the_bridge():
    draws = exact_draws(jax.random.key(3), TRUTH)
    bridged = log_z_bridge(4, logdensity, MIXTURE, NEARBY, draws)
    alone = log_z_importance(4, logdensity, MIXTURE, NEARBY, draws=draws)
    assert (
        (bridged.forward, bridged.forward_error) == (alone.log_z, alone.error) == (alone.forward, alone.forward_error)
    )
    assert str(alone) == f"log Z = {alone.log_z:.3f} +- {alone.error:.3f}"
    other = f", from flow draws alone {alone.log_z:.3f} +- {alone.error:.3f}"
    assert str(bridged) == f"log Z = {bridged.log_z:.3f} +- {bridged.error:.3f}{other}"
    assert LogZ._fields[:8] == ("log_z", "error", "ess", "pareto_k", "problems", "is_checked", "bracket", "num_invalid")
    assert str(evidence(1.0, 0.1)) == "log Z = 1.000 +- 0.100"  # one saved before there was a second
    nothing = log_z_importance(4, lambda x: -jnp.inf, MIXTURE, NEARBY)
    assert nothing.forward == -np.inf and nothing.forward_error == np.inf


@pytest.mark.parametrize("share", [0.03, 0.09])
def test_a_small_lost_mode_is_not_a_bare_number(share):
    """Forward is refused, the bridge sees the mode and is right."""
    uneven = (APART[0], APART[1], jnp.array([1 - share, share]))
    draws = exact_draws(jax.random.key(3), uneven)
    density = lambda x: mixture_log_prob(uneven, x) + LOG_Z
    found = log_z_importance(4, density, MIXTURE, ONE_MODE, draws=draws)
    assert "mode is probably lost" in found.problems[0] and "log Z =" not in str(found)
    bridged = log_z_bridge(4, density, MIXTURE, ONE_MODE, draws)
    assert not bridged.problems and abs(bridged.log_z - LOG_Z) < 4 * bridged.error
    assert bridged.forward < LOG_Z - 0.8 * share


@pytest.mark.parametrize("scale", [0.7, 1.15])
def test_a_flow_that_covers_the_target_raises_no_alarm(scale):
    near = (TRUTH[0] + 0.05, scale * TRUTH[1], TRUTH[2])
    draws = jax.vmap(exact_draws, (0, None))(jax.random.split(jax.random.key(7), 25), TRUTH)
    found = [log_z_importance(seed, logdensity, MIXTURE, near, draws=draws[seed]) for seed in range(25)]
    assert not any(one.problems for one in found)


def test_bad_draws_are_refused():
    draws = exact_draws(jax.random.key(3), TRUTH)
    with pytest.raises(ValueError, match="x\\[None\\]"):
        log_z_importance(0, logdensity, MIXTURE, NEARBY, draws=draws[0, :, 0])
    with pytest.raises(ValueError, match="at least 4 draws"):
        log_z_bridge(0, logdensity, MIXTURE, NEARBY, draws[:, :3])
    with pytest.raises(ValueError, match="num_draws"):
        log_z_bridge(0, logdensity, MIXTURE, NEARBY, draws, num_draws=1)
    with pytest.raises(ValueError, match="two ends"):
        log_z_bridge(0, logdensity, MIXTURE, NEARBY, None)


def test_import_is_light():
    code = "import sys, flowmcmc.reading; print([m for m in ('matplotlib', 'numpyro', 'arviz') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_evidence_of_a_run():
    def density(x):  # log Z = log 5
        near = jnp.log(0.3) - 0.5 * jnp.sum((x + 3.0) ** 2)
        return jnp.log(5.0) + jnp.logaddexp(near, jnp.log(0.7) - 0.5 * jnp.sum((x - 3.0) ** 2)) - jnp.log(2 * jnp.pi)

    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
    options = {"num_warmup": 40, "num_samples": 100, "num_chains": 20, "num_particles": 400, "progress_bar": False}
    result = flowmcmc.sample(0, density, flowmcmc.normal(jnp.zeros(2), scale=8.0), flow=flow, **options)
    found = flowmcmc.log_evidence(result)
    assert not found.problems and found.is_checked
    assert abs(found.log_z - np.log(5.0)) < 4.5 * found.error and found.error < 0.05
    assert flowmcmc.log_evidence(result, max_draws=200).error > found.error
    with pytest.raises(ValueError, match="fewer than 4 draws"):
        flowmcmc.log_evidence(dataclasses.replace(result, trace=None))


# --- several models --------------------------------------------------------------------------------------------------


def evidence(log_z, error, problems=()):
    return LogZ(log_z, error, 1.0, 0.0, problems, True, (log_z - 2 * error, log_z + 2 * error))
