r"""Assembly of every flow: a base density of vectors, pushed forward by an invertible map.

    x = T(z),   z ~ base,   log q(x) = log base(z) - log|det T'(z)|

Positions are raveled on the way in and out; base, map and fit see only vectors (d,) and rows (n, d). Gradients reach
only what is trainable; the rest comes from `fit`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flowmcmc.base import Array, Bijection, Flow, PyTree
from flowmcmc.ground.arguments import check_counts, check_numbers
from flowmcmc.ground.conversions import as_arrays
from flowmcmc.ground.trees import Layout, flatten, layout_of, raveled, stop_gradients

__all__ = ["Base", "Transport", "check_options", "pushforward"]


class Base(NamedTuple):
    """`sample` maps ``(rng_key, params)`` to a latent vector z, shape (d,); `log_prob` ``(params, z)`` to a scalar."""

    sample: Callable[[Array, PyTree], Array]
    log_prob: Callable[[PyTree, Array], Array]


class Transport(NamedTuple):
    """The map T: `forward` ``(params, z) -> (x, log|det dx/dz|)``, `inverse` ``(params, x) -> (z, log|det dz/dx|)``."""

    forward: Callable[[PyTree, Array], tuple[Array, Array]]
    inverse: Callable[[PyTree, Array], tuple[Array, Array]]


def pushforward(
    layout: Layout,
    base: Base,
    transport: Transport,
    fit: Callable[..., PyTree],
    *,
    init: Callable[[Array], PyTree],
    trainable: Callable[[PyTree], PyTree],
) -> Flow:
    """A `Flow` over positions of `layout`; its other optional fields are set with ``_replace``.

    Parameters
    ----------
    layout
        Shapes and dtype of a position, from `check_options`.
    base, transport
        Their functions take all parameters of the flow.
    fit
        As ``Flow.fit``, with rows (n, d) in place of positions.
    init
        ``rng_key -> params``.
    trainable
        As in `Flow`: no gradient reaches what it leaves out.
    """
    _, _, unravel = raveled(layout)
    fixed = lambda params: stop_gradients(trainable(params), params)

    def forward(params, z):
        x, log_det = transport.forward(fixed(params), z)
        return unravel(x), log_det

    def inverse(params, position):
        return transport.inverse(fixed(params), ravel_pytree(position)[0])

    def sample_and_log_prob(rng_key, params):
        z = base.sample(rng_key, fixed(params))
        position, log_det = forward(params, z)
        return position, base.log_prob(fixed(params), z) - log_det

    def log_prob(params, position):
        z, log_det = inverse(params, position)
        return base.log_prob(fixed(params), z) + log_det

    def fit_positions(rng_key, params, positions, weights, heldout, heldout_weights):
        return fit(rng_key, params, flatten(positions), weights, flatten(heldout), heldout_weights)

    return Flow(
        lambda rng_key, position: init(rng_key),
        sample_and_log_prob,
        log_prob,
        fit_positions,
        Bijection(forward, inverse),
        trainable,
    )


def check_options(position: PyTree, defensive: float, counts: dict[str, int]) -> Layout:
    """Layout of a position, after checking that a flow can be built for it and that the options are in range."""
    position = as_arrays(position, "position")
    for path, leaf in jax.tree_util.tree_leaves_with_path(position):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            name = jax.tree_util.keystr(path) or "position"
            raise TypeError(f"position must be made of floating arrays, but {name} has dtype {leaf.dtype}: convert it.")
    if sum(leaf.size for leaf in jax.tree.leaves(position)) == 0:
        raise ValueError("position is empty: a flow needs at least one coordinate.")
    check_counts(counts)
    check_numbers({"defensive": defensive})
    if not 0.0 <= defensive < 1.0:
        raise ValueError(f"defensive must lie in [0, 1), got {defensive}.")
    return layout_of(position)
