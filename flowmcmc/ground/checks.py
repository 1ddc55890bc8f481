"""Looking at the user's input before any long computation: what is wrong, what was seen, how to mend it."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.base import Flow, LogDensity, PyTree
from flowmcmc.ground.arguments import check_has
from flowmcmc.ground.compiling import compile_for, output_shape
from flowmcmc.ground.conversions import as_arrays
from flowmcmc.ground.leaves import describe_shapes, leaf_names

__all__ = [
    "check_density",
    "check_flow",
    "check_names",
    "check_positions",
    "check_result",
    "check_scalar",
    "check_start",
    "check_tree",
]


def check_names(what: str, names: list[str], num_axes: list[int]) -> None:
    """Raise ValueError if a DataTree could not hold leaves of these names, each with so many axes at one position."""
    axes = {"chain", "draw"} | {f"{name}_dim_{axis}" for name, num in zip(names, num_axes) for axis in range(num)}
    for index, name in enumerate(names):
        if name in axes:
            raise ValueError(f"{what} has a leaf named {name!r}, which is the name of an axis of the draws: rename it.")
        if name in names[:index]:
            raise ValueError(
                f"{what} has two leaves named {name!r}, as nesting and slashes both become dots: rename one of them."
            )


def check_positions(positions: PyTree, hint: str = "") -> PyTree:
    """`positions` as JAX arrays of JAX's default floating dtype (BlackJAX's kernels draw noise in that); `hint` says
    what else they could be.

    Raises
    ------
    TypeError
        If a leaf is not a floating array.
    ValueError
        If there are no chains, their numbers differ between leaves, a number is not finite, or two leaves have one name
        or that of an axis.
    """
    positions = as_arrays(positions, hint=hint)
    names, leaves = leaf_names(positions), jax.tree.leaves(positions)
    if not leaves:
        raise ValueError("positions is empty: pass an array, or a dict of arrays, with the chain axis first.")
    check_names("positions", names, [leaf.ndim - 1 for leaf in leaves])
    for name, leaf in zip(names, leaves):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"positions[{name}] has dtype {leaf.dtype}: starting positions must be floating numbers.")
        if leaf.ndim == 0:
            raise ValueError(f"positions[{name}] is a single number: the first axis must count the chains.")
        if leaf.shape[0] == 0:
            raise ValueError(f"positions[{name}] has shape {leaf.shape}: there are no chains.")
        if leaf.shape[0] != leaves[0].shape[0]:
            raise ValueError(
                f"positions[{name}] has {leaf.shape[0]} chains but positions[{names[0]}] has {leaves[0].shape[0]}: "
                "the first axis of every leaf counts the chains."
            )
        if not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"positions[{name}] holds NaN or infinite numbers: start every chain at a finite place.")
    return jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), positions)


def check_density(logdensity_fn: LogDensity, positions: PyTree) -> None:
    """Trace and evaluate the log density and its gradient at the (checked) starting positions.

    Raises
    ------
    TypeError
        If JAX cannot trace it, or it does not return a real floating scalar.
    ValueError
        If it is not finite at any start.

    Warns
    -----
    UserWarning
        If it is not finite at some starts, or its gradient is not, naming the parameter.
    """
    check_scalar("logdensity_fn", logdensity_fn, jax.tree.map(lambda leaf: leaf[0], positions))
    # one look at up to this many chains is enough to tell a slip from a hard start
    few = jax.tree.map(lambda leaf: leaf[:256], positions)
    values, grads = compile_for(values_and_gradients, logdensity_fn, is_brief=True)(few)
    values = np.asarray(values)
    is_good = np.isfinite(values)
    check_somewhere_finite(values)
    if not is_good.all():
        warnings.warn(
            f"logdensity_fn is not finite at {np.sum(~is_good)} of {len(values)} starting positions; those chains wait "
            "there until a proposal reaches the support.",
            stacklevel=3,
        )
    for name, grad in zip(leaf_names(grads), jax.tree.leaves(grads)):
        is_bad = ~np.isfinite(np.asarray(grad).reshape(len(values), -1)).all(axis=1) & is_good
        if is_bad.any():
            warnings.warn(
                f"the gradient of logdensity_fn with respect to {name} is not finite at {is_bad.sum()} of "
                f"{len(values)} starting positions, so gradient-based local steps are rejected there. A jnp.where "
                "around a division or a square root is the usual cause: make its argument safe inside too.",
                stacklevel=3,
            )


def values_and_gradients(logdensity_fn: LogDensity, positions: PyTree) -> tuple:
    """Log densities and their gradients at positions with a leading axis."""
    return jax.vmap(jax.value_and_grad(logdensity_fn))(positions)


def check_scalar(name: str, function, one: PyTree) -> None:
    """Raise TypeError unless JAX can trace `function` for `one` position, and it returns a real floating scalar."""
    try:
        out = output_shape(function, one)
    except Exception as error:
        raise TypeError(
            f"{name} cannot be traced by JAX for one position with {describe_shapes(one)}: "
            f"{type(error).__name__}: {str(error).splitlines()[0]} Write it with jax.numpy, for a single position "
            "without the chain axis, and with no Python branch on values."
        ) from error
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", jnp.dtype(bool))
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{name} must return a floating scalar for one position with {describe_shapes(one)}; it returned "
            + (f"shape {shape} of dtype {dtype}." if shape is not None else f"{type(out).__name__}.")
            + " Sum over the data and coordinates inside it."
        )


def check_start(rng_key, logdensity_fn: LogDensity, start) -> None:
    """Look at a density to start from, and at the target where it begins.

    Raises
    ------
    TypeError, ValueError
        If either is no floating scalar; the target is finite nowhere, or the start is not finite, at 256 of its draws;
        or if two leaves have one name or that of an axis.
    """
    one = output_shape(start.sample, rng_key)
    check_names("start", leaf_names(one), [leaf.ndim for leaf in jax.tree.leaves(one)])
    check_scalar("logdensity_fn", logdensity_fn, one)
    check_scalar("start.log_prob", start.log_prob, one)

    # one program, as every small one takes a tenth of a second to compile
    look = compile_for(draw_and_weigh, start.sample, logdensity_fn, start.log_prob, is_brief=True)
    draws, values, known = look(rng_key)
    check_positions(draws)
    check_somewhere_finite(np.asarray(values))
    if bad := int((~np.isfinite(known)).sum()):
        raise ValueError(
            f"start.log_prob is not finite at {bad} of {len(known)} of its own draws: it must be a normalised density, "
            "such as flowmcmc.normal(position, scale=10.0)."
        )


def draw_and_weigh(draw: Callable, logdensity_fn: LogDensity, log_prob: Callable, rng_key) -> tuple:
    """256 draws of a density to start from, and both log densities there."""
    draws = jax.vmap(draw)(jax.random.split(rng_key, 256))
    return draws, jax.vmap(logdensity_fn)(draws), jax.vmap(log_prob)(draws)


def check_somewhere_finite(values: np.ndarray) -> None:
    """Raise ValueError unless a log density is finite at one start at least."""
    if not np.isfinite(values).any():
        raise ValueError(
            f"logdensity_fn is not finite at any starting position (first value: {values[0]}): start inside the "
            "support, use flowmcmc.constrained for bounds, or look for a log of zero, a division by zero, an overflow."
        )


def check_flow(flow: Flow, position: PyTree) -> None:
    """See that a flow's two log densities agree at its own draws; a wrong one gives wrong draws without any sign.

    Raises
    ------
    ValueError
        If ``sample_and_log_prob`` and ``log_prob`` differ by more than 0.05 nats at most of 16 draws, or the draws are
        not shaped like `position`.
    """
    draws, gap = compile_for(draw_and_compare, static=(flow,), is_brief=True)(jax.random.key(0), position)
    one = jax.tree.map(lambda leaf: leaf[0], draws)
    if jax.tree.map(jnp.shape, one) != jax.tree.map(jnp.shape, position):
        raise ValueError(
            f"flow draws positions with {describe_shapes(one)}, but positions have {describe_shapes(position)}."
        )
    gap = np.median(np.abs(np.asarray(gap)))
    if not gap < 0.05:
        raise ValueError(
            f"flow.sample_and_log_prob and flow.log_prob disagree at the flow's own draws, by {gap:.3g} nats in "
            "the median: both must be the log density of the draws."
        )


def draw_and_compare(flow: Flow, rng_key, position: PyTree) -> tuple:
    """16 draws of an untrained flow, and the difference between its two log densities there."""
    key_init, key_draws = jax.random.split(rng_key)
    params = flow.init(key_init, position)
    draws, log_probs = jax.vmap(flow.sample_and_log_prob, (0, None))(jax.random.split(key_draws, 16), params)
    return draws, log_probs - jax.vmap(flow.log_prob, (None, 0))(params, draws)


def check_result(result: Any) -> None:
    """Raise TypeError unless it is a `SampleResult`; a DataTree holds no flow and no density."""
    check_has("result", result, ("logdensity_fn", "params"), "what flowmcmc.sample returned")


def check_tree(tree: Any) -> None:
    """Raise TypeError unless it is a DataTree."""
    check_has("datatree", tree, ("children", "attrs"), "a SampleResult or a DataTree with posterior (arviz.from_dict)")
