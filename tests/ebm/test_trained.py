"""A trained model in use: normalised, sampled, saved and loaded; health that does not look good on a bad run."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ebm
import flowmcmc
from ebm.experiments.targets import two_modes
from flowmcmc.reading.evidence import LogZ

POSITION = jnp.zeros(2)
FLOW = flowmcmc.gaussian_mixture(POSITION, num_components=4)
DATA = two_modes().sample(jax.random.key(0), 8000)
MODEL = ebm.Model(*ebm.mlp(POSITION, hidden=(32, 32)), ebm.normal(POSITION, scale=2.0))


def flow_assisted():
    sampler = partial(
        flowmcmc.adaptive,
        local=blackjax.mala,
        flow=FLOW,
        num_local_steps=2,
        num_flow_steps=1,
        history_size=4096,
        refit_every=200,
    )
    return ebm.maximum_likelihood(MODEL, ebm.persistent(sampler, num_chains=1024, num_active=256))


@pytest.fixture(scope="module")
def trained():
    fit = ebm.fit(0, MODEL, DATA, flow_assisted(), num_steps=1500, progress_bar=False)
    return fit, ebm.finish(1, fit, FLOW, num_warmup=100, num_samples=200, progress_bar=False)


@pytest.mark.slow
def test_the_model_has_the_data_s_weights_and_a_normalised_likelihood(trained):
    fit, model = trained
    grid = ebm.grid(MODEL, fit.theta, low=-5, high=5)
    weights = ebm.grid_mode_weights(grid, lambda x: np.asarray(two_modes().labels(jnp.asarray(x))))
    np.testing.assert_allclose(weights[1], float(jnp.mean(DATA.sum(1) > 0)), atol=0.03)
    # the bridge against the grid, which needs no sampler
    assert abs(model.log_z.log_z - grid.log_z) < 5 * model.log_z.error + 1e-3
    assert not model.log_z.problems
    truth = jax.vmap(two_modes().logdensity)(DATA)
    assert float(jnp.mean(truth - model.log_prob(DATA))) < 0.1
    assert not flowmcmc.summary(model.result).problems


@pytest.mark.slow
def test_health_of_a_good_run(trained):
    found = ebm.health(trained[0])
    assert found.flow_acceptance_rate > 0.5
    assert found.rhat < 1.05
    assert "No problem found" in str(found)


@pytest.mark.slow
def test_save_and_load_give_the_same_model(trained, tmp_path):
    model = trained[1]
    model.save(tmp_path / "model")
    again = ebm.load(tmp_path / "model", MODEL, FLOW)
    np.testing.assert_array_equal(again.log_prob(DATA), model.log_prob(DATA))
    assert str(again.log_z) == str(model.log_z)
    draws = again.sample(2, 20)
    assert draws.posterior.sizes["chain"] == 128
    points = [len(ebm.plot_energy(m, num=20).axes[0].collections[-1].get_offsets()) for m in (model, again)]
    assert points == [985, 128]  # draws, thinned; chains where there is no run
    with pytest.raises(FileExistsError, match="path"):
        model.save(tmp_path / "model")
    other = ebm.Model(*ebm.mlp(POSITION, hidden=(8,)), MODEL.tilt)
    with pytest.raises(ValueError, match="another model"):
        ebm.load(tmp_path / "model", other, FLOW)
    with pytest.raises(FileNotFoundError, match="no saved model"):
        ebm.load(tmp_path / "nothing", MODEL, FLOW)


@pytest.mark.slow
def test_a_save_that_fails_can_be_done_again(trained, tmp_path, monkeypatch):
    model = trained[1]
    with monkeypatch.context() as patch:
        patch.setattr(LogZ, "_asdict", lambda _: 1 / 0)  # after the arrays are written
        with pytest.raises(ZeroDivisionError):
            model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    model.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_no_likelihood_without_a_trustworthy_log_z(trained):
    doubtful = LogZ(0.0, 0.1, 0.5, 0.1, ("a mode is probably lost",), True, (-1.0, 1.0))
    model = ebm.EBM(MODEL, trained[0].theta, FLOW, trained[1].tuning, trained[1].positions, doubtful, blackjax.mala)
    with pytest.raises(ValueError, match="a mode is probably lost"):
        model.log_prob(DATA)


@pytest.mark.slow
def test_health_names_chains_that_do_not_mix():
    sampler = partial(
        flowmcmc.freeze,
        local=ebm.ula,
        flow=None,
        tuning=ebm.local_tuning(1e-2, POSITION),
        num_local_steps=5,
        num_flow_steps=0,
    )
    method = ebm.maximum_likelihood(MODEL, ebm.persistent(sampler, num_chains=512, num_active=256))
    found = ebm.health(ebm.fit(0, MODEL, DATA, method, num_steps=400, progress_bar=False))
    assert found.rhat > 1.2
    assert any("do not mix" in problem for problem in found.problems)


@pytest.mark.slow
def test_health_says_that_weights_are_unchecked_without_chains():
    noise = ebm.normal(POSITION, scale=2.0)
    found = ebm.health(ebm.fit(0, MODEL, DATA, ebm.nce(MODEL, noise), num_steps=50, progress_bar=False))
    assert np.isnan(found.rhat)
    assert any("unchecked" in problem for problem in found.problems)


@pytest.mark.slow
def test_finish_needs_two_chains(trained):
    with pytest.raises(ValueError, match="num_chains"):
        ebm.finish(0, trained[0], FLOW, num_chains=1)
