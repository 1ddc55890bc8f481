"""Constrained parameters without a model: the Jacobian is in the density."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions

import flowmcmc

QUIET = {"progress_bar": False}
constraints = distributions.constraints


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
    flow = flowmcmc.gaussian_mixture(u, num_components=1)
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
