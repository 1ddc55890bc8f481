r"""A local kernel in the latent space of a flow, where a well-trained flow has made the target round.

With x = T(z) and log|det T'(z)| its volume change, the kernel targets

    log p(T(z)) + log|det T'(z)|

so that its draws, mapped forward, follow p. It does not jump between modes that T keeps apart.
Reference: Hoffman et al., arXiv 1903.03704; for energy-based models Nijkamp et al., arXiv 2006.06897.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.base import Bijection, Flow, LocalKernel, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import check_has, check_local, hashable
from flowmcmc.kernels.scaled import LocalConstructor, scaled_kernel

__all__ = ["NeutraState", "neutra"]


class NeutraState(NamedTuple):
    """The position, and the local kernel's state on the latent point."""

    position: PyTree
    latent: NamedTuple


def neutra(local: LocalKernel, flow: Flow, params: PyTree = None) -> LocalKernel:
    """A constructor ``(logdensity_fn, step_size) -> SamplingAlgorithm``, to be used wherever `local` could be.

    Moves in the latent space of a flow: Hoffman et al., arXiv 1903.03704.

    Parameters
    ----------
    local
        ``blackjax.mala``, ``blackjax.nuts``, ``functools.partial(blackjax.hmc, num_integration_steps=10)``...
    flow
        A flow with a `bijection` (all flows of this library have one).
    params
        Its parameters, fixed. None: those of the sampler's own flow at the time, which must be `flow`. The step size is
        in latent units, where the flow's own draws have order one.

    Returns
    -------
    LocalConstructor
        ``(logdensity_fn, step_size) -> SamplingAlgorithm`` with a `NeutraState`; it can also be called directly, as
        below. Without `params` it must be given those of the flow as well.

    Raises
    ------
    ValueError
        If the flow has no bijection.

    Example
    -------
    >>> algorithm = neutra(blackjax.mala, flow, params)(logdensity_fn, 0.1)
    >>> state = algorithm.init(position)
    """
    check_local(local)
    check_has("flow", flow, ("bijection",), "a Flow, such as flowmcmc.real_nvp(position)")
    if flow.bijection is None:
        raise ValueError("flow has no bijection: neutra needs Flow(..., bijection=Bijection(forward, inverse)).")
    if params is None:
        return build_neutra(hashable(local), hashable(flow.bijection))
    with_flow_params = build_neutra(hashable(local), hashable(flow.bijection)).build
    return LocalConstructor(partial(with_flow_params, params=params), ("scale",))


@lru_cache(maxsize=64)
def build_neutra(local: LocalKernel, bijection: Bijection) -> LocalConstructor:
    """Build the constructor that takes the flow's parameters; equal arguments give the same object."""
    forward, inverse = bijection

    def build(logdensity_fn, step_size, *, params, scale=None):
        def to_units(position):  # rounds pass the density and positions in units of `scale`
            return position if scale is None else jax.tree.map(jnp.divide, position, scale)

        def from_units(position):
            return position if scale is None else jax.tree.map(jnp.multiply, position, scale)

        def latent_logdensity(z):
            position, log_det = forward(params, z)
            return logdensity_fn(to_units(position)) + log_det

        def latent_kernel(z):
            return scaled_kernel(local, latent_logdensity, step_size, jax.tree.map(jnp.ones_like, z))

        def init(position, rng_key=None):
            z, _ = inverse(params, from_units(position))
            return NeutraState(position, latent_kernel(z).init(z, rng_key))

        def step(rng_key, state):
            latent, info = latent_kernel(state.latent.position).step(rng_key, state.latent)
            old, new = jax.tree.leaves(state.latent.position), jax.tree.leaves(latent.position)
            # NaN compares unequal to itself, but a chain whose latent point is NaN has not moved
            has_moved = jnp.array([jnp.any((a != b) & ~jnp.isnan(b)) for a, b in zip(old, new)]).any()
            proposed = to_units(forward(params, latent.position)[0])
            # a round trip through the map rounds, but a rejected position must stay the same to the last bit
            position = jax.tree.map(lambda a, b: jnp.where(has_moved, a, b), proposed, state.position)
            return NeutraState(position, latent), info

        return SamplingAlgorithm(init, step)

    return LocalConstructor(build, ("scale", "params"))
