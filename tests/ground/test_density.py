"""Densities to start from, or to tilt, are normalised and draw what they say."""

import jax.numpy as jnp
import pytest
from support.densities import check_density_in_2d

from flowmcmc import normal, uniform

POSITION = jnp.zeros(2)
DENSITIES = {
    "normal": (normal(POSITION, loc=jnp.array([0.5, -1.0]), scale=jnp.array([0.6, 1.2])), [0.5, -1.0], [0.6, 1.2]),
    "uniform": (uniform(POSITION, low=jnp.array([-1.0, 2.0]), high=3.0), [1.0, 2.5], [4 / 12**0.5, 1 / 12**0.5]),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_they_are_normalised_and_draw_what_they_say(name):
    check_density_in_2d(*DENSITIES[name])


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="scale must be positive"):
        normal(POSITION, scale=jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="low must be below high"):
        uniform(POSITION, low=jnp.array([0.0, 1.0]), high=1.0)
    assert uniform(POSITION, low=0.0, high=1.0).log_prob(jnp.array([0.5, 1.5])) == -jnp.inf


def test_equal_numbers_give_the_same_density():
    assert normal(POSITION, scale=3.0) is normal(POSITION, scale=jnp.array([3.0, 3.0]))
    assert normal(POSITION, scale=3.0) is not normal(POSITION, scale=3.5)
