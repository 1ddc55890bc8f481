"""The runs that pictures are made of."""

import jax
import jax.numpy as jnp
import pytest
from support.targets import two_modes
from support.trees import CENTRES

import flowmcmc

SMALL = {"num_warmup": 30, "num_samples": 100, "progress_bar": False}


def starts(num_chains=20):
    sign = jnp.where(jnp.arange(num_chains) % 2 == 0, 3.0, -3.0)[:, None]
    return sign + jax.random.normal(jax.random.key(0), (num_chains, 2))


@pytest.fixture(scope="session")
def result():
    """Positions with names, two modes."""

    def density(position):
        return two_modes(jnp.concatenate([position["<a>"][None], position["b"]["c"]]))

    positions = {"<a>": starts()[:, 0], "b": {"c": starts()[:, 1:]}}
    return flowmcmc.sample(0, density, positions, **SMALL)


@pytest.fixture(scope="session")
def stuck():
    """No flow steps: every chain stays in the mode it starts in."""
    return flowmcmc.sample(0, two_modes, starts(), num_flow_steps=0, **SMALL)


@pytest.fixture(scope="session")
def found(result):
    return flowmcmc.summary(result, modes=CENTRES)
