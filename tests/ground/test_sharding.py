"""Without a mesh nothing is split; on one device a mesh changes nothing either."""

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc import chain_mesh
from flowmcmc.ground.sharding import mesh_context, on_chains, replicate


def both(x):
    return on_chains(x) + 1, replicate(x)


def test_without_a_mesh_a_tree_stays_itself():
    x = jnp.arange(4.0)
    with mesh_context(None):
        assert on_chains(x) is x and replicate(x) is x


def test_on_a_mesh_values_stay_and_types_say_where_they_are():
    mesh = chain_mesh(jax.devices()[:1])
    with mesh_context(mesh):
        split, whole = jax.jit(both)(jnp.arange(4.0))
    np.testing.assert_array_equal(split, np.arange(4.0) + 1)
    np.testing.assert_array_equal(whole, np.arange(4.0))
    assert split.sharding.mesh == whole.sharding.mesh == mesh
