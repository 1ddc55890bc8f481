"""Pytrees of arrays: the layout of a position and its way to a vector and back, names of leaves, rows, a digest."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from flowmcmc.base import Array, PyTree

__all__ = [
    "Layout",
    "concatenate_coordinates",
    "describe_shapes",
    "digest",
    "flatten",
    "is_nonconstant",
    "layout_of",
    "leaf_names",
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


def leaf_names(tree: PyTree) -> list[str]:
    """A name for each leaf: dict keys and indices joined by dots, ``x`` for a bare array. A slash is a dot too, as a
    DataTree allows none."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".") or "x" for path, _ in paths]


def describe_shapes(position: PyTree) -> str:
    """Such as ``mu: (3,), tau: ()``."""
    return ", ".join(f"{n}: {leaf.shape}" for n, leaf in zip(leaf_names(position), jax.tree.leaves(position)))


def digest(leaves: list) -> str:
    """SHA-256 of dtypes, shapes and bytes."""
    found = hashlib.sha256()
    for leaf in map(np.asarray, leaves):
        found.update(f"{leaf.dtype}{leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def concatenate_coordinates(leaves) -> np.ndarray:
    """Arrays that share their first two axes, (a, b, ...), as one (a, b, d)."""
    return np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)


def is_nonconstant(deviation: Array, mean: Array) -> Array:
    """Whether a standard deviation is more than the rounding of the mean."""
    return deviation > 8 * jnp.finfo(deviation.dtype).eps * jnp.abs(mean)
