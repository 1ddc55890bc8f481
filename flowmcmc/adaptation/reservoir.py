"""A bounded memory of chain states that forgets slowly.

Slots fill up in order; from then on each new state overwrites a slot chosen at random, so that a state is remembered
for `capacity` further states on average. A mode that the chains have left is still known for a while, and the states of
the first rounds, not yet draws of the target, fade out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.base import Array, PyTree

__all__ = ["Reservoir", "choose", "create", "enlarge", "insert", "weights"]


class Reservoir(NamedTuple):
    """`positions` with the slot axis first, and how many states were ever offered."""

    positions: PyTree
    count: Array


def create(capacity: int, position: PyTree) -> Reservoir:
    """An empty reservoir for states shaped like `position`."""
    slots = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), position)
    return Reservoir(slots, jnp.array(0))


def capacity(reservoir: Reservoir) -> int:
    """Number of slots."""
    return jax.tree.leaves(reservoir.positions)[0].shape[0]


def enlarge(reservoir: Reservoir, factor: int) -> Reservoir:
    """The same states with `factor` times as many slots."""

    def pad(leaf):
        return jnp.concatenate([leaf, jnp.zeros(((factor - 1) * leaf.shape[0], *leaf.shape[1:]), leaf.dtype)])

    count = jnp.minimum(reservoir.count, capacity(reservoir))
    return Reservoir(jax.tree.map(pad, reservoir.positions), count)


def insert(uniform: Array, reservoir: Reservoir, positions: PyTree, is_used: Array) -> Reservoir:
    """Offer the rows of `positions` marked in `is_used`, shape (n,), with a random number in [0, 1) for each; rows that
    are not finite are left out."""
    size = capacity(reservoir)
    for leaf in jax.tree.leaves(positions):
        is_used = is_used & jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
    num_used = jnp.sum(is_used)
    order = jnp.argsort(~is_used)  # used rows first; a cumulative sum would take longer to compile
    index = jnp.arange(len(order))
    slot = jnp.where(reservoir.count + index < size, reservoir.count + index, (size * uniform).astype(index.dtype))
    slot = jnp.where(index < num_used, slot, size)  # out of range: dropped

    def put(slots, rows):
        return slots.at[slot].set(jnp.asarray(rows)[order], mode="drop")

    return Reservoir(jax.tree.map(put, reservoir.positions, positions), reservoir.count + num_used)


def choose(rng_key: Array, reservoir: Reservoir, num: int) -> PyTree:
    """`num` states drawn uniformly with replacement from the slots in use."""
    in_use = jnp.clip(reservoir.count, 1, capacity(reservoir))
    index = jax.random.randint(rng_key, (num,), 0, in_use)
    return jax.tree.map(lambda slots: slots[index], reservoir.positions)


def weights(reservoir: Reservoir, dtype) -> Array:
    """1 for a slot in use, 0 for an empty one, shape (capacity,)."""
    return (jnp.arange(capacity(reservoir)) < reservoir.count).astype(dtype)
