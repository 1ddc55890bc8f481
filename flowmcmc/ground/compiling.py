"""How programs are compiled, and what keeps them from being compiled twice."""

import jax
import jax.numpy as jnp

from flowmcmc.base import PyTree

__all__ = ["compiler_options", "strongly_typed"]

# LLVM's costlier passes take a fifth of the compile time and gained nothing in running time (benchmarks/compiling.py)
COMPILER_OPTIONS = {"xla_backend_optimization_level": 1}
BRIEF_OPTIONS = {"xla_backend_optimization_level": 0}  # two thirds of the time to compile, and three times that to run


def compiler_options(*, is_brief: bool = False) -> dict | None:
    """For functions that the user waits for, with less effort for those that run once and are done in no time; other
    backends keep their defaults."""
    if jax.default_backend() != "cpu":
        return None
    return BRIEF_OPTIONS if is_brief else COMPILER_OPTIONS


def strongly_typed(tree: PyTree) -> PyTree:
    """Arrays without weak types, which the first step would make strong: everything would be compiled twice."""

    def strong(leaf):
        leaf = jnp.asarray(leaf)
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, tree)
