"""Rational-quadratic splines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmcmc import (
    spline_flow,
)
from flowmcmc.flows.spline import rational_quadratic


def test_the_spline_is_monotone_joins_smoothly_and_is_the_identity_outside():
    spline = rational_quadratic(5, 3.0)
    numbers = 2 * jax.random.normal(jax.random.key(0), (20, spline.num_params))
    x = jnp.linspace(-5, 5, 4001)
    forward = jax.jit(jax.vmap(jax.vmap(spline.forward, (None, 0)), (0, None)))
    y, log_derivative = forward(numbers, x)
    assert (jnp.diff(y, axis=1) > 0).all()
    outside = np.abs(x) >= 3
    assert np.array_equal(y[:, outside], np.broadcast_to(x[outside], (20, outside.sum())))
    assert (log_derivative[:, outside] == 0).all()
    ends = forward(numbers, jnp.array([-3 + 1e-9, 3 - 1e-9]))
    assert np.allclose(ends[0], [[-3, 3]], atol=1e-8)
    assert np.allclose(ends[1], 0, atol=1e-5)
    # the derivative is that of the curve, also across knots
    slope = np.gradient(np.asarray(y), np.asarray(x), axis=1)
    assert np.median(np.abs(slope - np.exp(log_derivative))) < 1e-4


@pytest.mark.parametrize("options", [{"num_bins": 0}, {"bound": 0.0}, {"bound": -2.0}])
def test_spline_options_out_of_range_raise_with_their_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        spline_flow(jnp.zeros(2), **options)
