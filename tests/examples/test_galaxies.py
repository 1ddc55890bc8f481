"""The galaxy mixture: data, density, Jacobian, symmetry, starts and the demo's picture and table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flowmcmc.examples import galaxies


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def position():
    return {
        "mu": jnp.array([9.7, 21.4, 31.0]),
        "log_sigma2": jnp.array([0.3, 1.6, 2.4]),
        "weights_raw": jnp.array([-1.6, 1.2]),
    }


def permute(position, permutation):
    weights_raw = jnp.log(galaxies.constrain(position)["weights"])[permutation] @ galaxies.BASIS
    return {
        "mu": position["mu"][permutation],
        "log_sigma2": position["log_sigma2"][permutation],
        "weights_raw": weights_raw,
    }


def test_data_are_the_82_velocities():
    velocities = galaxies.load()
    assert velocities.shape == (82,)
    assert velocities.sum() == pytest.approx(1708.18)
    assert velocities[[0, 77, -1]].tolist() == [9.172, 26.96, 34.279]


def test_logdensity_is_the_scipy_composition(position):
    mu, sigma, weights = (np.asarray(x) for x in galaxies.constrain(position).values())
    y = galaxies.load()[:, None]
    likelihood = np.log((weights * stats.norm.pdf(y, mu, sigma)).sum(1)).sum()
    prior = (
        stats.norm.logpdf(mu, 20, 10).sum()
        + stats.invgamma.logpdf(sigma**2, 3, scale=20).sum()
        + stats.dirichlet.logpdf(weights, np.ones(3))
    )
    log_jacobian = np.log(sigma**2).sum() + np.log(np.sqrt(3) * weights.prod())
    assert galaxies.logdensity(position) == pytest.approx(likelihood + prior + log_jacobian, rel=0, abs=1e-10)


def test_jacobian_of_the_weights_is_that_of_autodiff(position):
    def first_two(weights_raw):
        return galaxies.constrain(position | {"weights_raw": weights_raw})["weights"][:2]

    jacobian = jax.jacfwd(first_two)(position["weights_raw"])
    weights = np.asarray(galaxies.constrain(position)["weights"])
    assert weights.sum() == pytest.approx(1)
    assert abs(jnp.linalg.det(jacobian)) == pytest.approx(np.sqrt(3) * weights.prod(), rel=1e-12)


@pytest.mark.parametrize("permutation", galaxies.PERMUTATIONS, ids=galaxies.ORDERINGS)
def test_permuting_labels_changes_nothing(position, permutation):
    permuted = permute(position, permutation)
    assert galaxies.logdensity(permuted) == pytest.approx(float(galaxies.logdensity(position)), rel=0, abs=1e-10)
    norms = [np.linalg.norm(p["weights_raw"]) for p in (position, permuted)]
    assert norms[0] == pytest.approx(norms[1])


def test_logdensity_keeps_the_input_dtype(position):
    single = jax.tree.map(lambda x: x.astype(jnp.float32), position)
    value, gradient = jax.jit(jax.value_and_grad(galaxies.logdensity))(single)
    assert {x.dtype for x in jax.tree.leaves((value, gradient))} == {jnp.dtype("float32")}
    assert value == pytest.approx(float(galaxies.logdensity(position)), rel=1e-5)


def test_labelling_names_the_ordering():
    for index, name in enumerate(galaxies.ORDERINGS):
        ascending = [int(label) - 1 for label in name.split("<")]
        mu = np.empty(3)
        mu[ascending] = [9.0, 21.0, 31.0]
        assert galaxies.labelling(mu) == index
    assert galaxies.labelling(np.zeros((4, 5, 3))).shape == (4, 5)


def test_starts_cover_the_labellings_and_have_finite_gradients():
    starts = jax.jit(galaxies.starting_positions, static_argnums=1)(jax.random.key(0), 100)
    assert galaxies.labelling(np.asarray(starts["mu"])).tolist() == [i % 6 for i in range(100)]
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(galaxies.logdensity)))(starts)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((values, gradients)))
    # Overdispersed: wider than the posterior, whose middle mean has standard deviation 0.3.
    assert np.sort(starts["mu"], axis=1)[:, 1].std() > 0.6


def test_nuts_table_and_picture(tmp_path):
    nuts, seconds = galaxies.run_nuts(0, num_chains=2, num_warmup=200, num_samples=100)
    assert nuts.posterior["mu"].dims == ("chain", "draw", "mu_dim_0")
    assert {"mu", "log_sigma2", "weights_raw", "sigma", "weights"} == set(nuts.posterior.data_vars)
    assert np.allclose(nuts.posterior["weights"].sum("weights_dim_0"), 1)
    galaxies.plot(nuts, nuts, tmp_path / "galaxies.png")
    assert (tmp_path / "galaxies.png").stat().st_size > 10_000
    head, line = galaxies.table({"NUTS": (nuts, seconds)}).splitlines()
    assert all(name in head for name in galaxies.ORDERINGS)
    # Two short chains do not see all six labellings: those masses have no error estimate.
    assert "0.000 +- -" in line
