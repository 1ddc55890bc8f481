"""The small network inside a coupling layer."""

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.flows import conditioner

SIZES = (3, 5, 2, jnp.dtype("float32"))


def test_it_starts_at_zero_and_is_two_hidden_layers():
    params = conditioner.init(SIZES, jax.random.key(0))
    x = jnp.array([0.3, -1.0, 2.0], jnp.float32)
    assert not conditioner.apply(SIZES, params, x).any()
    moved = jax.tree.map(lambda leaf: leaf + 0.3, params)
    hidden = x
    for name in ("first", "second"):
        hidden = jax.nn.silu(hidden @ moved[name]["kernel"] + moved[name]["bias"])
    expected = hidden @ moved["last"]["kernel"] + moved["last"]["bias"]
    found = conditioner.apply(SIZES, moved, x)
    assert found.shape == (2,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_another_key_gives_other_weights():
    kernels = [conditioner.init(SIZES, jax.random.key(seed))["first"]["kernel"] for seed in (0, 0, 1)]
    assert np.array_equal(kernels[0], kernels[1]) and not np.array_equal(kernels[0], kernels[2])
