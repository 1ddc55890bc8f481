"""The run that the tests of `sample` look at."""

import jax
import jax.numpy as jnp
import pytest
from support.runs import SMALL, small_flow, starts
from support.targets import two_modes

import flowmcmc


@pytest.fixture(scope="session")
def result():
    def density(position):
        return two_modes(jnp.concatenate([position["a"][None], position["b"]["c"]]))

    positions = {"a": starts()[:, 0], "b": {"c": starts()[:, 1:]}}
    flow = small_flow(jax.tree.map(lambda leaf: leaf[0], positions))
    return flowmcmc.sample(0, density, positions, flow=flow, keep_warmup=True, **SMALL)
