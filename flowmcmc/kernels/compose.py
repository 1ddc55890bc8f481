"""Samplers built from others: `cycle` applies several in turn, `vmap_chains` runs one on many chains.

Kernel states (cached density, gradient, weight) are rebuilt from the position whenever a kernel takes over, so any
kernel mixes with any other and nothing cached can be stale. Invariance of the parts gives invariance of the whole.
"""

from typing import NamedTuple

import jax

from flowmcmc.base import PyTree, SamplingAlgorithm, num_chains
from flowmcmc.ground.arguments import check_counts, check_sampler

__all__ = ["CycleInfo", "CycleState", "cycle", "vmap_chains"]


class CycleState(NamedTuple):
    """State of a cycle: the position, and nothing that belongs to one kernel."""

    position: PyTree


class CycleInfo(NamedTuple):
    """Infos of the parts, in order, each with a leading axis over the steps of that part."""

    parts: tuple


def cycle(*parts: tuple[SamplingAlgorithm, int]) -> SamplingAlgorithm:
    """Apply each ``(algorithm, num_steps)`` in turn; one step is the whole cycle.

    Cycles of kernels leave the target invariant if each part does: Tierney (1994).

    Parameters
    ----------
    parts
        Pairs of a BlackJAX ``SamplingAlgorithm`` (its state must have ``.position``) and how many steps it takes.
        Unadjusted kernels (``blackjax.mclmc``, Langevin without a test) bias the cycle.

    Returns
    -------
    SamplingAlgorithm
        ``init(position, rng_key=None) -> CycleState`` and ``step(rng_key, state) -> (CycleState, CycleInfo)`` for one
        chain; the info of each part has a leading axis over its steps.

    Raises
    ------
    ValueError
        If there is no part, or a number of steps is below one.
    TypeError
        If a part is not such a pair.

    Example
    -------
    >>> algorithm = cycle((blackjax.mala(logdensity_fn, 0.1), 5), (imh(logdensity_fn, flow, params), 1))
    """
    if not parts:
        raise ValueError("cycle needs at least one (algorithm, num_steps) pair, got none.")
    for part in parts:
        if len(part) != 2 or callable(part[1]):
            raise TypeError("each part of a cycle must be a pair, (algorithm, num_steps): cycle((algorithm, 1)).")
        check_sampler(part[0])
        check_counts({"num_steps of a part of a cycle": part[1]})

    def init_fn(position, rng_key=None):
        return CycleState(position)

    def step_fn(rng_key, state):
        position, infos = state.position, []
        # one call makes all keys, because each call of the generator takes a tenth of a second to compile
        keys = jax.random.split(rng_key, sum(1 + num_steps for _, num_steps in parts))
        for algorithm, num_steps in parts:
            kernel_state, info = jax.lax.scan(
                lambda kernel_state, key, step=algorithm.step: step(key, kernel_state),
                algorithm.init(position, keys[0]),
                keys[1 : 1 + num_steps],
            )
            keys = keys[1 + num_steps :]
            position = kernel_state.position
            infos.append(info)
        return CycleState(position), CycleInfo(tuple(infos))

    return SamplingAlgorithm(init_fn, step_fn)


def vmap_chains(algorithm: SamplingAlgorithm) -> SamplingAlgorithm:
    """The same sampler on many chains: positions, states and infos get the chain axis first.

    Each chain has a key of its own. ``init(positions, rng_key)`` may go without a key where the kernel needs none.

    Parameters
    ----------
    algorithm
        A sampler of one chain, of this library or BlackJAX's.

    Returns
    -------
    SamplingAlgorithm
        ``init(positions, rng_key=None)`` and ``step(rng_key, state)``; every leaf of positions, states and infos is
        (chain, ...).
    """
    check_sampler(algorithm)

    def init_fn(positions, rng_key=None):
        if rng_key is None:
            return jax.vmap(lambda position: algorithm.init(position, None))(positions)
        return jax.vmap(algorithm.init)(positions, jax.random.split(rng_key, num_chains(positions)))

    def step_fn(rng_key, state):
        keys = jax.random.split(rng_key, num_chains(state.position))
        return jax.vmap(algorithm.step)(keys, state)

    return SamplingAlgorithm(init_fn, step_fn)
