"""Leaves as people and files see them."""

import jax.numpy as jnp
import numpy as np

from flowmcmc.ground.leaves import concatenate_coordinates, describe_shapes, digest, leaf_names


def test_names_join_keys_by_dots():
    tree = {"b": {"c/d": jnp.zeros(3)}, "a": [jnp.zeros(()), jnp.zeros(2)]}
    assert leaf_names(tree) == ["a.0", "a.1", "b.c.d"]
    assert leaf_names(jnp.zeros(2)) == ["x"]
    assert describe_shapes(tree) == "a.0: (), a.1: (2,), b.c.d: (3,)"


def test_a_digest_tells_numbers_shapes_and_dtypes_apart():
    leaves = [np.arange(6.0)]
    others = [
        [np.arange(6.0) + 1e-9],
        [np.arange(6.0).reshape(2, 3)],
        [np.arange(6.0, dtype=np.float32)],
        [np.arange(3.0), np.arange(3.0, 6.0)],
    ]
    assert len({digest(one) for one in [leaves, *others]}) == 5
    assert digest(leaves) == digest([np.arange(12.0)[::2] / 2]), "how it lies in memory does not matter"


def test_coordinates_stand_side_by_side():
    a, b = np.zeros((4, 3)), np.ones((4, 3, 2, 2))
    found = concatenate_coordinates([a, b])
    assert found.shape == (4, 3, 5) and (found[..., 0] == 0).all() and (found[..., 1:] == 1).all()
