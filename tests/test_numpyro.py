"""The bridge to NumPyro: density and prior against its own, the kernel inside MCMC, simulation-based calibration."""

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

import flowmcmc
from flowmcmc.numpyro import FlowMCMC, from_numpyro

QUIET = {"progress_bar": False}


def conjugate(y=None):
    """mu ~ N(0, 2), tau ~ Gamma(3, 2), y ~ N(mu, tau^-1/2); posterior known up to a constant."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.Gamma(3.0, 2.0))
    numpyro.deterministic("sd", tau**-0.5)
    with numpyro.plate("data", 5 if y is None else len(y)):
        numpyro.sample("y", dist.Normal(mu, tau**-0.5), obs=y)


Y = np.array([0.3, 1.4, -0.2, 0.9, 1.1])


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


def posterior_mean_of_mu() -> float:
    mu, tau = np.meshgrid(np.linspace(-4, 5, 800), np.linspace(1e-3, 9, 800), indexing="ij")
    log_p = stats.norm(0, 2).logpdf(mu) + stats.gamma(3, scale=0.5).logpdf(tau)
    log_p += sum(stats.norm(mu, tau**-0.5).logpdf(y) for y in Y)
    p = np.exp(log_p - log_p.max())
    return float((p * mu).sum() / p.sum())


def test_sample_from_the_prior_gives_the_posterior_with_its_sites():
    bridge = from_numpyro(conjugate, Y)
    flow = flowmcmc.gaussian_mixture({"mu": jnp.zeros(()), "tau": jnp.zeros(())}, num_components=4)
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
    flow = lambda position: flowmcmc.gaussian_mixture(position, num_components=4)
    return FlowMCMC(conjugate, flow=flow, options=steps, **options)


def test_the_kernel_in_mcmc():
    mcmc = MCMC(kernel(), num_warmup=60, num_samples=300, num_chains=40, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(0), Y, extra_fields=("potential_energy", "accept_prob", "flow_accept_prob"))
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["mu"].shape == draws["sd"].shape == (40, 300)
    error = float(az.mcse(np.asarray(draws["mu"])))
    assert abs(draws["mu"].mean() - posterior_mean_of_mu()) < 4.5 * error
    extra = mcmc.get_extra_fields(group_by_chain=True)
    assert extra["flow_accept_prob"].shape == (40, 300) and extra["flow_accept_prob"].mean() > 0.5
    u = {"mu": draws["mu"][3, 7], "tau": jnp.log(draws["tau"][3, 7])}
    np.testing.assert_allclose(extra["potential_energy"][3, 7], -from_numpyro(conjugate, Y).logdensity_fn(u), rtol=1e-9)
    assert az.from_numpyro(mcmc).posterior.sizes["chain"] == 40
    mcmc.print_summary()
    # production holds the tuning: the next run goes on with the same flow
    tuning = mcmc.last_state.adaptive.tuning
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.post_warmup_state.rng_key, Y)
    jax.tree.map(np.testing.assert_array_equal, tuning, mcmc.last_state.adaptive.tuning)


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


def test_simulation_based_calibration():
    """Ranks of the true parameters among posterior draws are uniform (Talts et al., arXiv 1804.06788)."""
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
        warming = flowmcmc.adaptive(bridge.logdensity_fn, blackjax.mala, flow, history_size=512, **options)
        state = advance(warming, warming.init(starts, key_init), key_warm, 60)
        frozen = flowmcmc.freeze(bridge.logdensity_fn, blackjax.mala, flow, state.tuning, **options)
        state = advance(frozen, frozen.init(state.position), key_draw, 60)
        sites = jax.vmap(bridge.constrain)(state.position)  # one draw of each chain: independent given the flow
        return jnp.array([jnp.sum(sites["mu"] < truth["mu"][0]), jnp.sum(sites["tau"] < truth["tau"][0])])

    ranks = np.asarray(jax.lax.map(rank, jax.random.split(jax.random.key(7), num)))
    for column in ranks.T:  # 20 possible ranks, in bins of two
        counts = np.bincount(column // 2, minlength=10)
        assert stats.chisquare(counts).pvalue > 1e-4


def advance(algorithm, state, rng_key, num: int):
    return jax.lax.scan(lambda s, k: (algorithm.step(k, s)[0], None), state, jax.random.split(rng_key, num))[0]


def test_constraints_without_a_model():
    """Gamma(3, 2) times Dirichlet(2, 3, 4) on their own spaces."""

    def logdensity(x):
        return 2 * jnp.log(x["rate"]) - 2 * x["rate"] + jnp.sum(jnp.array([1.0, 2.0, 3.0]) * jnp.log(x["weights"]))

    problem = flowmcmc.constrained(logdensity, {"rate": constraints.positive, "weights": constraints.simplex})
    x = {"rate": jnp.array(1.3), "weights": jnp.array([0.2, 0.3, 0.5])}
    u = problem.unconstrain(x)
    assert u["weights"].shape == (2,)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), problem.constrain(u), x)
    flat, unravel = jax.flatten_util.ravel_pytree(u)
    free = lambda v: jnp.append(problem.constrain(unravel(v))["rate"], problem.constrain(unravel(v))["weights"][:2])
    jacobian = np.linalg.slogdet(jax.jacobian(free)(flat))[1]
    np.testing.assert_allclose(problem.logdensity_fn(u), logdensity(x) + jacobian, rtol=1e-10)
    starts = jax.vmap(problem.unconstrain)({"rate": jnp.ones(40), "weights": jnp.full((40, 3), 1 / 3)})
    flow = flowmcmc.gaussian_mixture(u, num_components=4)
    result = flowmcmc.sample(0, problem.logdensity_fn, starts, flow=flow, num_warmup=60, num_samples=300, **QUIET)
    draws = jax.vmap(jax.vmap(problem.constrain))(result.trace.position)
    for values, truth in ((draws["rate"], 1.5), (draws["weights"][..., 0], 2 / 9)):
        error = float(az.mcse(np.asarray(values).T))
        assert abs(np.mean(values) - truth) < 4.5 * error
    with pytest.raises(TypeError, match="one leaf is 3"):
        flowmcmc.constrained(logdensity, {"rate": 3, "weights": constraints.simplex})
    with pytest.raises(ValueError, match="no map from the real numbers"):
        flowmcmc.constrained(logdensity, {"rate": constraints.boolean, "weights": constraints.simplex})
