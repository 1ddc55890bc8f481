"""The kernel inside `numpyro.infer.MCMC`."""

import re

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC
from support.models import Y, conjugate, posterior_mean_of_mu

import flowmcmc
from flowmcmc.bridges.numpyro_kernel import FlowMCMCState
from flowmcmc.numpyro import FlowMCMC, from_numpyro

QUIET = {"progress_bar": False}


def kernel(**options) -> FlowMCMC:
    steps = {"num_local_steps": 2, "num_flow_steps": 2, "num_train_steps": 2}
    flow = lambda position: flowmcmc.gaussian_mixture(position, num_components=1)
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


def test_diagnostics_of_a_round_in_words():
    state = FlowMCMCState(*[None] * 8)._replace(accept_prob=jnp.array([0.5, 0.75]), flow_accept_prob=jnp.zeros(2))
    assert kernel().get_diagnostics_str(state) == "acceptance: local 0.62, flow 0.00"


@pytest.mark.parametrize("how", ["sequential", "parallel"])
@pytest.mark.filterwarnings("ignore:There are not enough devices")
def test_chains_that_do_not_know_of_each_other_are_refused(how):
    mcmc = MCMC(kernel(), num_warmup=5, num_samples=5, num_chains=2, chain_method=how, **QUIET)
    with pytest.raises(ValueError, match='chain_method="vectorized"; "parallel" and "sequential" would'):
        mcmc.run(jax.random.key(0), Y)


def test_the_docstring_says_where_chains_start():
    first = " ".join(FlowMCMC.__doc__.split("\n\n")[1].split())
    assert "Chains start by NumPyro's `init_strategy`" in first and "does NOT search for modes" in first
