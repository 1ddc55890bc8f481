"""Positions as pytrees: their layout, the way to a vector and back, and which parts of parameters gradients reach."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flowmcmc.base import Array, PyTree

__all__ = [
    "Layout",
    "flatten",
    "is_nonconstant",
    "layout_of",
    "raveled",
    "stop_gradients",
    "zeros",
]


class Layout(NamedTuple):
    """Structure of a position, and `shapes` and `dtypes` of its leaves: all that a flow has to know of it."""

    structure: Any
    shapes: tuple
    dtypes: tuple


def layout_of(position: PyTree) -> Layout:
    """Of one position, or of anything with shapes and dtypes at its leaves."""
    leaves, structure = jax.tree.flatten(position)
    return Layout(
        structure, tuple(jnp.shape(leaf) for leaf in leaves), tuple(jnp.result_type(leaf).name for leaf in leaves)
    )


def zeros(layout: Layout) -> PyTree:
    """A position of zeros."""
    pairs = zip(layout.shapes, layout.dtypes)
    return jax.tree.unflatten(layout.structure, [jnp.zeros(shape, dtype) for shape, dtype in pairs])


@lru_cache(maxsize=64)
def raveled(layout: Layout) -> tuple[int, Any, Callable[[Any], PyTree]]:
    """Length and dtype of the vector that a position makes, and the way back from it."""
    vector, unravel = ravel_pytree(zeros(layout))
    return vector.size, vector.dtype, unravel


def flatten(positions: PyTree) -> Array:
    """Positions with a leading axis as rows (n, d)."""
    return jax.vmap(lambda position: ravel_pytree(position)[0])(positions)


def stop_gradients(mask: PyTree, params: PyTree) -> PyTree:
    """The same parameters, through which no gradient flows where `mask`, a prefix of their tree, is False."""
    return jax.tree.map(lambda is_on, part: part if is_on else jax.lax.stop_gradient(part), mask, params)


def is_nonconstant(deviation: Array, mean: Array) -> Array:
    """Whether a standard deviation is more than the rounding of the mean."""
    return deviation > 8 * jnp.finfo(deviation.dtype).eps * jnp.abs(mean)
