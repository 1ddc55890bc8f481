"""The bridge to NumPyro: density and prior against its own, the kernel inside MCMC, simulation-based calibration."""

import re

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
from flowmcmc.bridges.numpyro_kernel import FlowMCMCState
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


def test_the_kernel_in_mcmc(capsys):
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
    tree = az.from_numpyro(mcmc)
    assert tree.posterior.sizes == {"chain": 40, "draw": 300}
    assert set(tree.sample_stats.data_vars) == {"lp", "diverging", "acceptance_rate", "flow_accept_prob"}
    np.testing.assert_allclose(tree.sample_stats["lp"], -extra["potential_energy"])
    np.testing.assert_allclose(tree.sample_stats["acceptance_rate"], extra["accept_prob"])
    assert {"mu", "tau", "sd"} == set(az.summary(tree).index)
    mcmc.print_summary()
    shown = capsys.readouterr().out
    assert re.search(r"mean +std +median +5\.0% +95\.0% +n_eff +r_hat", shown) and "Number of divergences: 0" in shown
    found = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if len(line.split()) == 8}
    assert set(found) == {"mu", "tau"}  # NumPyro leaves out deterministic sites
    assert abs(float(found["mu"][0]) - float(draws["mu"].mean())) < 0.006 and float(found["mu"][6]) < 1.05
    # production holds the tuning: the next run goes on with the same flow
    tuning = mcmc.last_state.adaptive.tuning
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.post_warmup_state.rng_key, Y)
    jax.tree.map(np.testing.assert_array_equal, tuning, mcmc.last_state.adaptive.tuning)


def test_warmup_then_a_thinned_run_with_a_progress_bar(capsys):
    options = {"num_warmup": 20, "num_samples": 40, "num_chains": 8, "chain_method": "vectorized"}
    mcmc = MCMC(kernel(), thinning=4, **options)
    mcmc.progress_bar = True  # NumPyro turns it off under pytest-xdist
    mcmc.warmup(jax.random.key(0), y=Y)
    warm = mcmc.last_state
    assert warm.i == warm.adaptive.round == 20
    mcmc.run(jax.random.key(1), y=Y, extra_fields=("potential_energy",))
    assert mcmc.last_state.i == 60 and mcmc.last_state.adaptive.round == 20
    jax.tree.map(np.testing.assert_array_equal, warm.adaptive.tuning, mcmc.last_state.adaptive.tuning)
    assert re.search(r"sample: 100%.*40/40 .*acceptance: local [01]\.\d\d, flow [01]\.\d\d", capsys.readouterr().err)
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["mu"].shape == (8, 10)
    np.testing.assert_array_equal(draws["mu"][:, -1], mcmc.last_state.z["mu"])  # the last of each four
    at = {"mu": draws["mu"], "tau": jnp.log(draws["tau"])}
    energy = -jax.vmap(jax.vmap(from_numpyro(conjugate, y=Y).logdensity_fn))(at)
    np.testing.assert_allclose(mcmc.get_extra_fields(group_by_chain=True)["potential_energy"], energy, rtol=1e-9)


def test_arguments_by_name_are_those_by_place():
    u = {"mu": jnp.array(0.7), "tau": jnp.array(0.4)}
    by_name, by_place = from_numpyro(conjugate, y=Y), from_numpyro(conjugate, Y)
    np.testing.assert_array_equal(by_name.logdensity_fn(u), by_place.logdensity_fn(u))
    np.testing.assert_array_equal(by_name.prior.log_prob(u), by_place.prior.log_prob(u))
    key = jax.random.key(0)
    jax.tree.map(np.testing.assert_array_equal, by_name.prior.sample(key), by_place.prior.sample(key))
    assert by_name.constrain(u) == by_place.constrain(u)


def test_diagnostics_of_a_round_in_words():
    state = FlowMCMCState(*[None] * 8)._replace(accept_prob=jnp.array([0.5, 0.75]), flow_accept_prob=jnp.zeros(2))
    assert kernel().get_diagnostics_str(state) == "acceptance: local 0.62, flow 0.00"


@pytest.mark.parametrize("how", ["sequential", "parallel"])
@pytest.mark.filterwarnings("ignore:There are not enough devices")
def test_chains_that_do_not_know_of_each_other_are_refused(how):
    mcmc = MCMC(kernel(), num_warmup=5, num_samples=5, num_chains=2, chain_method=how, **QUIET)
    with pytest.raises(ValueError, match='chain_method="vectorized"; "parallel" and "sequential" would'):
        mcmc.run(jax.random.key(0), Y)


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


def test_the_docstring_says_where_chains_start():
    first = " ".join(FlowMCMC.__doc__.split("\n\n")[1].split())
    assert "Chains start by NumPyro's `init_strategy`" in first and "does NOT search for modes" in first


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
    with pytest.raises(TypeError, match="logdensity_fn must be a function"):
        flowmcmc.constrained("x", {"rate": constraints.positive})


SQUARE = {
    "interval": constraints.interval(-1.0, 3.0),
    "an interval for each": constraints.interval(jnp.array([0.0, -2.0, 1.0]), jnp.array([0.5, 5.0, 100.0])),
    "unit interval": constraints.unit_interval,
    "circular": constraints.circular,
    "positive": constraints.positive,
    "softplus": constraints.softplus_positive,
    "above": constraints.greater_than(2.0),
    "below": constraints.less_than(-2.0),
    "ordered": constraints.ordered_vector,
    "positive ordered": constraints.positive_ordered_vector,
    "many": constraints.independent(constraints.positive, 1),
    "real": constraints.real,
}


@pytest.mark.parametrize("name", SQUARE)
def test_the_jacobian_of_a_constraint_is_in_the_density(name):
    problem = flowmcmc.constrained(lambda x: -jnp.sum(x["a"] ** 2), {"a": SQUARE[name]})
    for seed in range(3):
        u = {"a": 2 * jax.random.normal(jax.random.key(seed), (3,))}
        x = problem.constrain(u)
        assert np.all(SQUARE[name](x["a"]))
        np.testing.assert_allclose(problem.unconstrain(x)["a"], u["a"], rtol=1e-8)
        jacobian = jax.jacobian(problem.constrain)(u)["a"]["a"]
        expected = -np.sum(x["a"] ** 2) + np.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(problem.logdensity_fn(u), expected, rtol=1e-8)


def test_mass_on_an_interval_is_kept():
    """The parabola 3 (3 - x) (x + 1) / 32 on (-1, 3) has mass 1 and mean 1 on the whole line too."""
    problem = flowmcmc.constrained(lambda x: jnp.log(3 * (3 - x) * (x + 1) / 32), constraints.interval(-1.0, 3.0))
    u = jnp.linspace(-30.0, 30.0, 20_001)
    p = np.exp(jax.vmap(problem.logdensity_fn)(u)) * float(u[1] - u[0])
    np.testing.assert_allclose([p.sum(), p @ jax.vmap(problem.constrain)(u)], [1.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    "constraint, words",
    [
        (constraints.interval(3.0, -1.0), "lower one first; half a line is constraints.greater_than"),
        (constraints.interval(0.0, jnp.inf), "must have finite bounds"),
        (constraints.sphere, "no map from the real numbers"),
        (constraints.dependent, "no map from the real numbers"),
        (constraints.integer_interval(0, 3), "no map from the real numbers"),
    ],
)
def test_constraints_without_a_map_are_refused(constraint, words):
    with pytest.raises(ValueError, match=words):
        flowmcmc.constrained(lambda x: 0.0, {"a": constraint})
