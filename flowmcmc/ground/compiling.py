"""How programs are compiled, and what keeps them from being compiled twice.

What a program calls (a density, a kernel's step) is taken as a `jax.tree_util.Partial`: the function is part of its
structure, its data are arguments like any others. Programs are kept by that structure, so that equal functions with
other data of the same shapes find theirs; the oldest are forgotten, and all that they held with them.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial

from flowmcmc.base import PyTree
from flowmcmc.ground.arguments import hashable

__all__ = ["as_partial", "compile_for", "compiler_options", "output_shape"]

NUM_PROGRAMS = 64  # that are kept; a default run has some fifteen
# LLVM's costlier passes take a fifth of the compile time and gained nothing in running time (benchmarks/compiling.py)
COMPILER_OPTIONS = {"xla_backend_optimization_level": 1}
BRIEF_OPTIONS = {"xla_backend_optimization_level": 0}  # compiles in 2/3 of the time, runs three times slower


def compiler_options(*, is_brief: bool = False) -> dict | None:
    """Options for CPU programs, `is_brief` for those that run once in no time; other backends keep their defaults."""
    if jax.default_backend() != "cpu":
        return None
    return BRIEF_OPTIONS if is_brief else COMPILER_OPTIONS


def as_partial(function: Callable) -> Partial:
    """`function` as a pytree: the data of a `jax.tree_util.Partial` are its leaves, anything else has none."""
    if isinstance(function, Partial) and all(is_array(leaf) for leaf in jax.tree.leaves(function)):
        return function
    return Partial(hashable(function))


def is_array(leaf: Any) -> bool:
    """Whether a compiled program takes it as an argument."""
    return isinstance(leaf, (jax.Array, bool, int, float)) or (hasattr(leaf, "dtype") and hasattr(leaf, "shape"))


def compile_for(body: Callable, *functions: Callable, static: tuple = (), is_brief: bool = False) -> Callable:
    """``body(*static, *functions, *arguments)`` as a compiled function of the arguments.

    Parameters
    ----------
    body
        A module-level function.
    functions
        Of the user, or made from them; compiled anew for another function, not for other data.
    static
        Options, each with a hash.
    is_brief
        Whether it runs once and is done in no time, so that compiling it well would not pay.
    """
    partials = tuple(as_partial(function) for function in functions)
    static = tuple(hashable(value) for value in static)
    leaves, structure = jax.tree.flatten(partials)
    # weakly typed data, as of `jnp.full`, would be another program
    leaves = [np.asarray(leaf) if is_weak(leaf) else leaf for leaf in leaves]
    return partial(jitted(body, static, structure, is_brief), leaves)


def is_weak(leaf: Any) -> bool:
    """Whether it is an array whose type gives way to others."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.aval.weak_type


@lru_cache(maxsize=NUM_PROGRAMS)
def jitted(body: Callable, static: tuple, structure: Any, is_brief: bool) -> Callable:
    """One `jax.jit` for each body, options and structure of functions; within it JAX keeps a program for each shapes
    and types of the arguments. All of them go when this cache forgets it."""

    # functions stay out of the arguments: JAX keeps the structure of arguments in caches of its own
    def program(leaves, *arguments):
        return body(*static, *structure.unflatten(leaves), *arguments)

    program.__name__ = body.__name__
    return jax.jit(program, compiler_options=compiler_options(is_brief=is_brief))


def output_shape(function: Callable, *arguments: PyTree) -> Any:
    """`jax.eval_shape`, traced once for each function and shapes of the arguments."""
    leaves, structure = jax.tree.flatten((as_partial(function), arguments))
    return traced_shape(structure, tuple((jnp.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves))


@lru_cache(maxsize=NUM_PROGRAMS)
def traced_shape(structure: Any, specs: tuple) -> Any:
    """Shape of what the function in `structure` returns."""
    function, arguments = structure.unflatten([jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in specs])
    return jax.eval_shape(lambda function, arguments: function(*arguments), function, arguments)
