"""Leaves of pytrees as people and files see them: names, shapes, coordinates side by side, a digest."""

import hashlib
from collections.abc import Sequence

import jax
import numpy as np

from flowmcmc.base import PyTree

__all__ = ["concatenate_coordinates", "concatenate_trees", "describe_shapes", "digest", "leaf_names"]


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


def concatenate_trees(trees: Sequence[PyTree]) -> PyTree:
    """One tree of NumPy arrays, those of several alike one after the other along the first axis."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)
