"""Arguments as JAX has them: arrays from whatever holds numbers, types that stay, a key from a seed."""

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.base import Array, PyTree

__all__ = ["as_arrays", "as_key", "strongly_typed"]


def as_arrays(tree: PyTree, name: str = "positions", hint: str = "") -> PyTree:
    """JAX arrays in place of whatever the leaves are; raise TypeError for a leaf that is no array of numbers."""
    try:
        return jax.tree.map(jnp.asarray, tree)
    except (TypeError, ValueError) as error:
        why = str(error.__cause__ or error).splitlines()[0].rstrip(".")
        raise TypeError(f"{name} must be made of arrays of numbers: {why}{hint}.") from error


def as_key(rng_key) -> Array:
    """A typed key from a typed key, a raw key or an int seed."""
    if isinstance(rng_key, (int, np.integer)) and not isinstance(rng_key, bool):
        if not -(2**63) <= rng_key < 2**63:
            raise ValueError(f"rng_key = {rng_key} is too large a seed: take one of at most 63 bits.")
        return jax.random.key(int(rng_key))
    if isinstance(rng_key, (jax.Array, np.ndarray)):
        rng_key = jnp.asarray(rng_key)
        if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key) and rng_key.shape == ():
            return rng_key
        if rng_key.dtype == jnp.uint32 and rng_key.ndim == 1:
            return jax.random.wrap_key_data(rng_key)
    raise TypeError(
        f"rng_key must be one JAX key (jax.random.key(0)) or an int seed, got {type(rng_key).__name__}"
        f"{getattr(rng_key, 'shape', '')}."
    )


def strongly_typed(tree: PyTree) -> PyTree:
    """Arrays without weak types, which the first step would make strong: everything would be compiled twice."""

    def strong(leaf):
        leaf = jnp.asarray(leaf)
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, tree)
