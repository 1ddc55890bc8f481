"""The bridge to NumPyro: density and prior against its own, and simulation-based calibration."""

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer import MCMC
from scipy import stats
from support.models import Y, conjugate, posterior_mean_of_mu

import flowmcmc
from flowmcmc.numpyro import FlowMCMC, from_numpyro

QUIET = {"progress_bar": False}


def test_density_prior_and_sites():
    bridge = from_numpyro(conjugate, Y)
    u = {"mu": jnp.array(0.7), "tau": jnp.array(0.4)}
    tau = np.exp(0.4)
    prior = stats.norm(0, 2).logpdf(0.7) + stats.gamma(3, scale=0.5).logpdf(tau) + 0.4
    likelihood = stats.norm(0.7, tau**-0.5).logpdf(Y).sum()
    np.testing.assert_allclose(bridge.logdensity_fn(u), prior + likelihood, rtol=1e-12)
    np.testing.assert_allclose(bridge.prior.log_prob(u), prior, rtol=1e-12)
    sites = bridge.constrain(u)
    np.testing.assert_allclose([sites["tau"], sites["sd"]], [tau, tau**-0.5], rtol=1e-12)
    draws = jax.vmap(bridge.prior.sample)(jax.random.split(jax.random.key(0), 4000))
    assert stats.kstest(np.asarray(draws["mu"]), stats.norm(0, 2).cdf).pvalue > 1e-4
    assert stats.kstest(np.exp(np.asarray(draws["tau"])), stats.gamma(3, scale=0.5).cdf).pvalue > 1e-4


def test_sample_from_the_prior_gives_the_posterior_with_its_sites():
    bridge = from_numpyro(conjugate, Y)
    flow = flowmcmc.gaussian_mixture({"mu": jnp.zeros(()), "tau": jnp.zeros(())}, num_components=1)
    options = {"num_warmup": 40, "num_samples": 300, "num_chains": 40, "num_particles": 400}
    result = flowmcmc.sample(0, bridge.logdensity_fn, bridge.prior, flow=flow, **options, **QUIET)
    tree = bridge.to_datatree(result)
    assert set(tree.posterior.data_vars) == {"mu", "tau", "sd"}
    np.testing.assert_allclose(tree.posterior.sd, tree.posterior.tau**-0.5, rtol=1e-10)
    error = float(az.mcse(tree.posterior.mu.values))
    assert abs(float(tree.posterior.mu.mean()) - posterior_mean_of_mu()) < 4.5 * error
    assert "lp" in tree.sample_stats and "warmup_history" in tree.children


def kernel(**options) -> FlowMCMC:
    steps = {"num_local_steps": 2, "num_flow_steps": 2, "num_train_steps": 2}
    flow = lambda position: flowmcmc.gaussian_mixture(position, num_components=1)
    return FlowMCMC(conjugate, flow=flow, options=steps, **options)


def test_arguments_by_name_are_those_by_place():
    u = {"mu": jnp.array(0.7), "tau": jnp.array(0.4)}
    by_name, by_place = from_numpyro(conjugate, y=Y), from_numpyro(conjugate, Y)
    np.testing.assert_array_equal(by_name.logdensity_fn(u), by_place.logdensity_fn(u))
    np.testing.assert_array_equal(by_name.prior.log_prob(u), by_place.prior.log_prob(u))
    key = jax.random.key(0)
    jax.tree.map(np.testing.assert_array_equal, by_name.prior.sample(key), by_place.prior.sample(key))
    assert by_name.constrain(u) == by_place.constrain(u)


def learned():
    """A site that only variational inference would learn."""
    scale = numpyro.param("scale", 3.0, constraint=constraints.positive)
    numpyro.sample("x", dist.Normal(0.0, scale))


def improper():
    numpyro.sample("x", dist.ImproperUniform(constraints.real, (), ()))
    numpyro.factor("y", 0.0)


@pytest.mark.parametrize(
    "model, words",
    [
        (learned, "site 'scale' is a numpyro.param.*initial value.*numpyro.sample, or write a number in its place"),
        (improper, "prior that cannot be drawn from, an improper one perhaps: give every latent site a proper one"),
    ],
)
def test_sites_without_a_prior_are_refused(model, words):
    with pytest.raises(ValueError, match=words):
        from_numpyro(model)
    mcmc = MCMC(FlowMCMC(model), num_warmup=5, num_samples=5, num_chains=4, chain_method="vectorized", **QUIET)
    with pytest.raises(ValueError, match=words):
        mcmc.run(jax.random.key(0))


def scoped(y=None):
    with numpyro.handlers.scope(prefix="group"):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.deterministic("twice", 2 * mu)
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_a_scope_is_a_dot_in_the_datatree():
    bridge = from_numpyro(scoped, 0.5)
    one = {"group/mu": jnp.ones((4,))}
    tuning = flowmcmc.Tuning((), jnp.array(0.1), {"group/mu": jnp.array(1.0)})
    frozen = flowmcmc.freeze(bridge.logdensity_fn, blackjax.mala, None, tuning, num_local_steps=1, num_flow_steps=0)
    trace = flowmcmc.run(0, frozen, one, 5, progress_bar=False)[1]
    known = jax.vmap(jax.vmap(bridge.constrain))(trace.position)
    tree = flowmcmc.to_datatree(trace._replace(position=jax.device_get(known)))
    assert set(tree.posterior.data_vars) == {"group.mu", "group.twice"}


def test_sites_that_a_datatree_cannot_hold_are_refused():
    def named_like_an_axis():
        numpyro.deterministic("draw", numpyro.sample("x", dist.Normal(0.0, 1.0)))

    def same_name():
        scoped()
        numpyro.sample("group.mu", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="model has a leaf named 'draw', which is the name of an axis"):
        from_numpyro(named_like_an_axis)
    with pytest.raises(ValueError, match=r"model has two leaves named 'group\.mu'"):
        from_numpyro(same_name)


def test_what_would_be_wrong_in_silence_is_refused():
    with pytest.raises(ValueError, match='chain_method="vectorized"'):
        MCMC(kernel(), num_warmup=5, num_samples=5, **QUIET).run(jax.random.key(0), Y)
    options = {"num_samples": 5, "num_chains": 4, "chain_method": "vectorized", **QUIET}
    with pytest.raises(ValueError, match="num_warmup must be at least 1"):
        MCMC(kernel(), num_warmup=0, **options).run(jax.random.key(0), Y)

    def discrete():
        numpyro.sample("k", dist.Bernoulli(0.5))

    def subsampled():
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 100, subsample_size=10):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.zeros(10))

    def observed():
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.5)

    for model, message in (
        (discrete, "'k' is discrete"),
        (subsampled, "takes 10 of 100"),
        (observed, "no latent site"),
    ):
        with pytest.raises(ValueError, match=message):
            from_numpyro(model)
    with pytest.raises(ValueError, match="cannot be run with these arguments"):
        from_numpyro(conjugate, Y, 3)


def schools(y=None):
    """A small hierarchical model, not centred: three groups of known error."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    with numpyro.plate("school", 3):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * z, 1.0), obs=y)


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.slow
def test_simulation_based_calibration(power):
    """Ranks of the true parameters among posterior draws are uniform (Talts et al., arXiv 1804.06788), and are not
    where the chains sample the square root of the posterior."""
    flow = flowmcmc.gaussian_mixture({"mu": jnp.zeros(()), "tau": jnp.zeros(()), "z": jnp.zeros(3)}, num_components=2)
    num, chains = 200, 19

    @jax.jit
    def rank(key):
        key_truth, key_start, key_init, key_warm, key_draw = jax.random.split(key, 5)
        truth = numpyro.infer.Predictive(schools, num_samples=1)(key_truth)
        y = truth["y"][0]
        bridge = from_numpyro(schools, y)
        starts = jax.vmap(bridge.prior.sample)(jax.random.split(key_start, chains))
        options = {"num_local_steps": 3, "num_flow_steps": 3}
        logdensity = lambda x: power * bridge.logdensity_fn(x)
        warming = flowmcmc.adaptive(logdensity, blackjax.mala, flow, history_size=512, **options)
        state = advance(warming, warming.init(starts, key_init), key_warm, 60)
        frozen = flowmcmc.freeze(logdensity, blackjax.mala, flow, state.tuning, **options)
        state = advance(frozen, frozen.init(state.position), key_draw, 60)
        sites = jax.vmap(bridge.constrain)(state.position)  # one draw of each chain: independent given the flow
        return jnp.array([jnp.sum(sites["mu"] < truth["mu"][0]), jnp.sum(sites["tau"] < truth["tau"][0])])

    ranks = np.asarray(jax.lax.map(rank, jax.random.split(jax.random.key(7), num)))
    # 20 possible ranks, in bins of two
    p_values = [stats.chisquare(np.bincount(column // 2, minlength=10)).pvalue for column in ranks.T]
    assert (min(p_values) > 1e-4) == (power == 1.0)


def advance(algorithm, state, rng_key, num: int):
    return jax.lax.scan(lambda s, k: (algorithm.step(k, s)[0], None), state, jax.random.split(rng_key, num))[0]
