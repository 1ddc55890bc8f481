"""Coupling layers are inverted, have their Jacobian, and let every coordinate act on every other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmcmc.flows.coupling import affine, alternating_masks, coupling
from flowmcmc.flows.spline import rational_quadratic

ELEMENTWISE = {"affine": affine(), "spline": rational_quadratic(5, 3.0)}


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_coupling_layers_are_inverted_and_have_their_jacobian(kind, dim):
    layers = coupling(dim, ELEMENTWISE[kind], num_layers=4, hidden=8, dtype=jnp.float64)
    start = layers.init(jax.random.key(0))
    leaves, treedef = jax.tree.flatten(start)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # splines get steep: with more than this the condition number alone spends the digits
    amount = 0.5 if kind == "affine" else 0.3
    moved = jax.tree.unflatten(treedef, [x + amount * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def look(params, x):
        y, log_det = layers.forward(params, x)
        back, log_det_back = layers.inverse(params, y)
        jacobian = jax.jacfwd(lambda x: layers.forward(params, x)[0])(x)
        return y, log_det, back, log_det_back, jnp.linalg.slogdet(jacobian)

    x = 2 * jax.random.normal(jax.random.key(2), (200, dim))
    y, log_det, back, log_det_back, exact = look(moved, x)
    assert np.abs(y - x).max() > 0.5
    assert np.allclose(back, x, atol=1e-9)
    assert (exact.sign == 1).all()
    assert np.allclose(log_det, exact.logabsdet, atol=1e-9)
    assert np.allclose(log_det, -log_det_back, atol=1e-9)
    y, log_det, *_ = look(start, x)
    assert np.allclose(y, x, atol=1e-12)
    assert np.allclose(log_det, 0, atol=1e-12)


def test_two_layers_transform_each_coordinate():
    for dim in (1, 2, 3, 5):
        layers = coupling(dim, affine(), num_layers=2, hidden=4, dtype=jnp.float64)
        params = jax.tree.map(lambda leaf: leaf + 0.3, layers.init(jax.random.key(0)))
        y, _ = layers.forward(params, jnp.zeros(dim))
        assert (jnp.abs(y) > 1e-3).all()


@pytest.mark.parametrize("dim", [2, 3, 5, 8, 33])
def test_two_layers_for_each_binary_digit_let_every_coordinate_act_on_every_other(dim):
    is_kept = np.asarray(alternating_masks(dim, 2 * (dim - 1).bit_length()))
    acts = (is_kept[:, :, None] & ~is_kept[:, None, :]).any(0)
    assert np.array_equal(acts, ~np.eye(dim, dtype=bool))


def test_log_scales_are_bounded():
    numbers = 100 * jax.random.normal(jax.random.key(0), (500, 14))
    x = jnp.linspace(-4, 4, 500)
    _, log_derivative = jax.vmap(ELEMENTWISE["affine"].forward)(numbers[:, :2], x)
    assert np.abs(log_derivative).max() <= 3
    # shares of at least 1e-2 / 5 and slopes of at least 1e-2: finite for numbers of any size
    for direction in (ELEMENTWISE["spline"].forward, ELEMENTWISE["spline"].inverse):
        y, log_derivative = jax.vmap(direction)(numbers, x)
        assert np.isfinite(y).all()
        assert np.abs(log_derivative).max() < 20
