"""Arguments become arrays and keys, or are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmcmc.ground.conversions import as_arrays, as_key


def test_key_typed_raw_or_int_is_the_same_key():
    data = [jax.random.key_data(as_key(key)) for key in (3, np.int64(3), jax.random.key(3), jax.random.PRNGKey(3))]
    assert all((d == data[0]).all() for d in data)


def test_lists_and_numbers_become_arrays_and_words_do_not():
    found = as_arrays({"a": [1.0, 2.0], "b": np.float32(3)}, "position")
    assert (isinstance(found["a"], jax.Array) and found["a"].shape == ()) or jnp.shape(found["b"]) == ()
    assert found["b"].dtype == jnp.float32
    with pytest.raises(TypeError, match="position must be made of arrays of numbers"):
        as_arrays({"a": "here"}, "position")
