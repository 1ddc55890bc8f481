"""The recipes of docs/recipes.md run and are right, where their libraries are installed."""

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

RECIPES = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
PYMC, STAN, MANY = re.findall(r"```python\n(.*?)```", RECIPES, flags=re.DOTALL)
Y = np.array([-3.1, -2.7, -3.4, 2.8, 3.3, 3.0, -2.9, 3.1])


def run(code, folder, monkeypatch):
    """What a recipe defines, run in `folder` with fewer draws."""
    monkeypatch.chdir(folder)
    known: dict = {}
    exec(
        code.replace(", wide)", ", wide, num_chains=40, num_particles=200, num_samples=100, progress_bar=False)"), known
    )
    return known


def check(mu, sigma):
    """Both orders of the means about as often, and both near the halves of the data."""
    gap = np.abs(mu[..., 0] - mu[..., 1])
    assert abs(gap.mean() - 6.07) < 0.1
    assert abs((mu[..., 0] > mu[..., 1]).mean() - 0.5) < 0.1
    assert 0.2 < sigma.mean() < 0.5


@pytest.mark.slow
def test_pymc(tmp_path, monkeypatch):
    pytest.importorskip("pymc")
    known = run(PYMC, tmp_path, monkeypatch)
    posterior = known["tree"].posterior
    check(posterior["mu"].values, posterior["sigma"].values)
    np.testing.assert_allclose(posterior["gap"], np.abs(posterior["mu"][..., 0] - posterior["mu"][..., 1]))
    point = known["model"].initial_point() | {"mu": np.array([1.0, -2.0])}
    np.testing.assert_allclose(
        known["logdensity"](jax.tree.map(jnp.asarray, point)), known["model"].compile_logp()(point)
    )


def logdensity(x):
    """What the Stan program of the recipe says, with the Jacobian of sigma = exp(x[2])."""
    mu, sigma = x[:2], jnp.exp(x[2])
    each = jnp.logaddexp(norm.logpdf(Y, mu[0], sigma), norm.logpdf(Y, mu[1], sigma)) + jnp.log(0.5)
    return jnp.sum(norm.logpdf(mu, 0, 5)) + norm.logpdf(sigma, 0, 2) + x[2] + jnp.sum(each)


class StandIn:
    """Methods and types of ``bridgestan.StanModel`` 2.9, with the recipe's program inside."""

    def __init__(self, model_lib, data=None):
        assert "log_mix" in Path(model_lib).read_text() and list(data["y"]) == list(Y)

    def param_unc_num(self):
        return 3

    def param_names(self):
        return ["mu.1", "mu.2", "sigma"]

    def param_constrain(self, theta_unc):
        self.check(theta_unc)
        return np.append(theta_unc[:2], np.exp(theta_unc[2]))

    @np.errstate(all="ignore")
    def log_density_gradient(self, theta_unc):
        self.check(theta_unc)
        if theta_unc[2] > 8:
            raise RuntimeError("log_density_gradient() failed with exception: Scale parameter is inf")
        mu, sigma = theta_unc[:2], np.exp(theta_unc[2])
        z = (Y[:, None] - mu) / sigma
        log_each = -0.5 * z**2 - theta_unc[2] + np.log(0.5 / np.sqrt(2 * np.pi))
        total = np.logaddexp(*log_each.T)
        share = np.exp(log_each - total[:, None])
        value = -0.5 * np.sum(mu**2) / 25 - sigma**2 / 8 + theta_unc[2] + total.sum()
        gradient = np.append((share * z).sum(0) / sigma - mu / 25, (share * (z**2 - 1)).sum() - sigma**2 / 4 + 1)
        return float(value), gradient

    @staticmethod
    def check(theta_unc):
        """BridgeStan's own: one position of contiguous doubles."""
        assert theta_unc.dtype == np.float64 and theta_unc.shape == (3,) and theta_unc.flags.c_contiguous


@pytest.mark.slow
def test_bridgestan_call_out_with_a_stand_in(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bridgestan", SimpleNamespace(StanModel=StandIn))
    known = run(STAN, tmp_path, monkeypatch)
    constrained = known["constrained"]
    check(constrained[..., :2], constrained[..., 2])
    assert set(known["tree"].posterior) == {"mu.1", "mu.2", "sigma"}
    points = jax.random.normal(jax.random.key(0), (2, 3, 3))
    called = known["stan_logdensity"](known["model"])
    values, gradients = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(called))))(points)
    wanted, slopes = jax.vmap(jax.vmap(jax.value_and_grad(logdensity)))(points)
    np.testing.assert_allclose(values - values[0, 0], wanted - wanted[0, 0])  # up to a constant, as Stan's
    np.testing.assert_allclose(gradients, slopes)
    assert called(jnp.array([0.0, 0.0, 9.0])) == -jnp.inf


@pytest.mark.slow
def test_bridgestan(tmp_path, monkeypatch):
    bridgestan = pytest.importorskip("bridgestan")
    sources = os.environ.get("BRIDGESTAN") or bridgestan.download.CURRENT_BRIDGESTAN
    if not Path(sources).exists():
        pytest.skip(f"BridgeStan's C++ sources are not at {sources}")
    constrained = run(STAN, tmp_path, monkeypatch)["constrained"]
    check(constrained[..., :2], constrained[..., 2])


@pytest.mark.slow
def test_many_data_sets(capsys):
    exec(MANY, {})
    found = [list(map(float, line.split()[1:])) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 3
    # 10,000 draws of a posterior with standard deviation 0.22
    assert all(abs(mean - truth) < 0.02 for mean, truth in found)
