"""The layout of a position, the way to a vector and back, and where gradients flow."""

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.ground.trees import flatten, is_nonconstant, layout_of, raveled, stop_gradients, zeros

POSITION = {"a": jnp.array(1.0), "b": jnp.array([[2.0, 3.0]], jnp.float32)}


def test_positions_of_one_layout_are_equal_in_it():
    layout = layout_of(POSITION)
    assert layout == layout_of(jax.tree.map(lambda leaf: leaf + 1, POSITION)) and hash(layout) == hash(layout)
    assert layout != layout_of({"a": POSITION["a"], "b": POSITION["b"][0]})
    assert layout != layout_of({"a": POSITION["a"], "b": POSITION["b"].astype(jnp.float64)})
    assert layout_of(zeros(layout)) == layout and not any(leaf.any() for leaf in jax.tree.leaves(zeros(layout)))


def test_a_vector_leads_back_to_its_position():
    dim, dtype, unravel = raveled(layout_of(POSITION))
    row = flatten(jax.tree.map(lambda leaf: leaf[None], POSITION))[0]
    assert dim == 3 == len(row) and dtype == row.dtype
    jax.tree.map(np.testing.assert_array_equal, unravel(row), POSITION)


def test_no_gradient_flows_where_the_mask_is_false():
    def loss(params):
        params = stop_gradients({"on": True, "off": False}, params)
        return params["on"]["x"] ** 2 + params["off"]["x"] ** 3

    params = {"on": {"x": jnp.array(3.0)}, "off": {"x": jnp.array(2.0)}}
    assert loss(params) == 17
    assert jax.grad(loss)(params) == {"on": {"x": 6.0}, "off": {"x": 0.0}}


def test_a_deviation_that_is_rounding_is_none():
    found = is_nonconstant(jnp.array([0.0, 1e-16, 1e-3, 1e-9]), jnp.array([1.0, 1.0, 1.0, 1e8]))
    assert found.tolist() == [False, False, True, False]
