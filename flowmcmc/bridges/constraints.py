"""Constrained parameters: a density on bounds, simplexes... as one on all of R^n, with the Jacobian inside.

    log p_u(u) = log p(x(u)) + log|det dx/du|

The bijections are NumPyro's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flowmcmc.base import LogDensity, PyTree
from flowmcmc.ground.arguments import check_callables

__all__ = ["Constrained", "constrained"]


class Constrained(NamedTuple):
    """`logdensity_fn` of one unconstrained position, and the maps `constrain` and `unconstrain` for ONE position."""

    logdensity_fn: LogDensity
    constrain: Callable[[PyTree], PyTree]
    unconstrain: Callable[[PyTree], PyTree]


def constrained(logdensity_fn: LogDensity, constraints: Any) -> Constrained:
    """Move a density with constrained parameters to unconstrained ones.

    Parameters
    ----------
    logdensity_fn
        Unnormalised log density of one constrained position.
    constraints
        Pytree like a position, with a constraint of ``numpyro.distributions.constraints`` at each leaf: ``positive``,
        ``interval(0, 1)``, ``simplex``, ``real`` where there is none.

    Returns
    -------
    Constrained
        ``logdensity_fn`` of one unconstrained position, a scalar in nats with the Jacobian inside; ``constrain`` and
        ``unconstrain``, which map one position either way. For sampling pass the first; map the draws with the second.

    Raises
    ------
    TypeError
        If `logdensity_fn` is not a function, or a leaf is not a NumPyro constraint.
    ValueError
        If a constraint has no bijection from the real numbers (a discrete one, a sphere), or an interval no inside.

    Example
    -------
    >>> from numpyro.distributions import constraints
    >>> problem = constrained(logdensity_fn, {"rate": constraints.positive, "weights": constraints.simplex})
    >>> starts = jax.vmap(problem.unconstrain)({"rate": jnp.ones(100), "weights": jnp.full((100, 3), 1 / 3)})
    >>> result = flowmcmc.sample(0, problem.logdensity_fn, starts)
    >>> draws = jax.vmap(jax.vmap(problem.constrain))(result.trace.position)
    """
    from numpyro.distributions.constraints import Constraint
    from numpyro.distributions.transforms import biject_to

    check_callables({"logdensity_fn": logdensity_fn}, "lambda position: -position['rate']")

    def bijection(constraint):
        if not isinstance(constraint, Constraint):
            raise TypeError(
                f"constraints must hold numpyro.distributions.constraints, but one leaf is {constraint!r}; write "
                "constraints.real where there is none."
            )
        try:
            found = None if constraint.is_discrete else biject_to(constraint)
        except NotImplementedError:
            found = None
        if found is None:
            raise ValueError(f"there is no map from the real numbers to {constraint!r}.")
        check_bounds(constraint)
        return found

    def is_leaf(node):
        return isinstance(node, Constraint) or node is None

    leaves, treedef = jax.tree.flatten(constraints, is_leaf=is_leaf)
    bijections = [bijection(leaf) for leaf in leaves]

    def constrain(position):
        return treedef.unflatten([t(u) for t, u in zip(bijections, treedef.flatten_up_to(position))])

    def unconstrain(position):
        return treedef.unflatten([t.inv(x) for t, x in zip(bijections, treedef.flatten_up_to(position))])

    def logdensity(position):
        us = treedef.flatten_up_to(position)
        xs = [t(u) for t, u in zip(bijections, us)]
        jacobians = [jnp.sum(t.log_abs_det_jacobian(u, x)) for t, u, x in zip(bijections, us, xs)]
        return logdensity_fn(treedef.unflatten(xs)) + sum(jacobians)

    return Constrained(logdensity, constrain, unconstrain)


def check_bounds(constraint) -> None:
    """Raise ValueError for an interval without an inside, or without an end; bounds inside of jit cannot be seen."""
    low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
    if low is None or high is None or isinstance(low, Tracer) or isinstance(high, Tracer):
        return
    if not np.all(np.isfinite(low) & np.isfinite(high) & np.less(low, high)):
        raise ValueError(
            f"{constraint!r} must have finite bounds, the lower one first; half a line is constraints.greater_than or "
            "constraints.less_than."
        )
