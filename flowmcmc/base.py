"""The types every other file speaks in.

A sampler is BlackJAX's ``SamplingAlgorithm``, a pair ``init(position, rng_key) -> state`` and
``step(rng_key, state) -> (state, info)``. A proposal density is a `Flow`, three functions and some optional ones.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

if TYPE_CHECKING:
    # BlackJAX's protocols fix argument names and know no fields of states
    class SamplingAlgorithm(NamedTuple):
        init: Callable[..., Any]
        step: Callable[..., tuple[Any, Any]]
else:
    from blackjax.base import SamplingAlgorithm

__all__ = ["Array", "Bijection", "Flow", "LocalKernel", "LogDensity", "PyTree", "SamplingAlgorithm", "num_chains"]

PyTree = Any
Array = jax.Array
LogDensity = Callable[[PyTree], Array]
LocalKernel = Callable[..., Any]  # (logdensity_fn, step_size) -> SamplingAlgorithm


class Bijection(NamedTuple):
    """An invertible map between latent points and positions.

    `forward` maps ``(params, latent) -> (position, log|det|)``, `inverse` ``(params, position) -> (latent, log|det|)``,
    each with the log determinant of its own direction.
    """

    forward: Callable[[PyTree, PyTree], tuple[PyTree, Array]]
    inverse: Callable[[PyTree, PyTree], tuple[PyTree, Array]]


class Flow(NamedTuple):
    """A normalised density with exact draws and an exact log density, over positions of one fixed pytree shape.

    Any library's flow fits by filling the first three functions; all act on ONE position and are vmapped by callers.
    The optional ones say what a sampler would otherwise have to guess: nothing outside a flow looks into its `params`.

    Attributes
    ----------
    init
        ``(rng_key, position) -> params``, where `position` gives the shape and dtype.
    sample_and_log_prob
        ``(rng_key, params) -> (position, log_prob)``, an exact draw and its log density from one pass.
    log_prob
        ``(params, position) -> scalar``.
    fit
        Optional, ``(rng_key, params, positions, weights, heldout, heldout_weights) -> params``: sets in closed form (or
        by EM) what gradients need not learn. `positions` and `heldout` carry the sample axis first and `weights`
        (zero for an unused row) one number for each. A pure function of fixed shapes, called inside compiled code.
    bijection
        Optional, the map from the base density's space; `neutra` moves there.
    trainable
        Optional, ``params -> mask``, booleans in the structure of `params` or of a prefix of it, as `optax.masked`
        takes them: what gradients train. None: all of `params`.
    num_components
        Optional, ``params -> int``: mixture components with a weight.
    drop_unused_components
        Optional, ``(params, num_slots) -> params``: the same density with room for so many mixture components, or for
        those in use if they are more. Components of weight zero cost time.
    metric
        Optional, ``params -> (d, d)``: covariance of the raveled position within modes, an inverse mass matrix.
    """

    init: Callable[[Array, PyTree], PyTree]
    sample_and_log_prob: Callable[[Array, PyTree], tuple[PyTree, Array]]
    log_prob: Callable[[PyTree, PyTree], Array]
    fit: Callable[..., PyTree] | None = None
    bijection: Bijection | None = None
    trainable: Callable[[PyTree], PyTree] | None = None
    num_components: Callable[[PyTree], int] | None = None
    drop_unused_components: Callable[[PyTree, int], PyTree] | None = None
    metric: Callable[[PyTree], Array] | None = None


def num_chains(positions: PyTree) -> int:
    """Length of the leading (chain) axis of `positions`."""
    first = jax.tree.leaves(positions)[0]
    if first.ndim == 0:
        raise ValueError("positions holds a single number: the first axis of each leaf must count the chains.")
    return first.shape[0]
