"""What a run is, in JSON: so that a checkpoint can be told from another's, and a colleague knows what was done."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from flowmcmc.base import Flow, PyTree
from flowmcmc.ground.compiling import output_shape
from flowmcmc.ground.leaves import describe_shapes, digest, leaf_names

__all__ = ["describe_flow", "describe_option", "describe_run"]

FORMAT = 3


def describe_run(rng_key, logdensity_fn: Callable, positions: PyTree, options: dict) -> dict:
    """What must be the same for a run to go on: options, versions, shapes, key, and the density where chains start."""
    few = jax.tree.map(lambda leaf: leaf[:4], positions)
    shapes = {name: list(leaf.shape) for name, leaf in zip(leaf_names(positions), jax.tree.leaves(positions))}
    return {
        "format": FORMAT,
        "versions": {package: version(package) for package in ("flowmcmc", "jax", "blackjax")},
        "double precision": bool(jax.config.read("jax_enable_x64")),
        "key": np.asarray(jax.random.key_data(rng_key)).tolist(),
        "positions": shapes,
        "starts": digest(jax.tree.leaves(positions)),
        "density at the first starts": [float(v) for v in jax.jit(jax.vmap(logdensity_fn))(few)],
        **options,
    }


def describe_option(value: Any) -> Any:
    """Numbers as they are; of a function its name, with what a `functools.partial` of it was given."""
    if isinstance(value, partial):
        given = [
            *map(str, map(describe_option, value.args)),
            *(f"{key}={describe_option(item)}" for key, item in value.keywords.items()),
        ]
        return f"{describe_option(value.func)}({', '.join(given)})"
    if value is None:
        return "default"
    if isinstance(value, (bool, int, float, str, np.number)):
        return value
    value = getattr(value, "differentiable", value)  # BlackJAX's top-level names are objects
    value = getattr(value, "build", value)  # of a `LocalConstructor`
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', type(value).__module__)}.{name}"


def describe_flow(flow: Flow | None, position: PyTree) -> str:
    """The shapes of a flow's parameters."""
    if flow is None:
        return "default"
    return describe_shapes(output_shape(flow.init, jax.random.key(0), position))
