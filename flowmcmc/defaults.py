"""What `sample` takes where nothing is said: flows, from the cheapest on, local kernels, and a search for the start."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.arguments import check_local
from flowmcmc.base import Flow, LocalKernel, PyTree
from flowmcmc.flows import (
    FlowParams,
    WarpedParams,
    bent_mixture,
    funnel_mixture,
    gaussian_mixture,
    marginal_mixtures,
    real_nvp,
)
from flowmcmc.local import asks_for, jittered, within_modes
from flowmcmc.neutra import neutra
from flowmcmc.tempering import tempered_smc
from flowmcmc.training import has_layers

__all__ = ["default_flows", "default_local", "search"]

LOCAL = jittered(partial(blackjax.hmc, num_integration_steps=8))
SMC_STEPS = 4  # a stage; particles need not be perfect, chains put them right
LATENT = jittered(partial(blackjax.hmc, num_integration_steps=4))


def default_flows(position: PyTree) -> dict[str, Flow]:
    """From the cheapest to the dearest: for modes, independent wells, a neck, a ridge, any shape of mode, several."""
    return {
        "mixture": gaussian_mixture(position),
        "marginals": marginal_mixtures(position),
        "funnel": funnel_mixture(position),
        "bent": bent_mixture(position),
        "layers": real_nvp(position, num_components=1, num_layers=8),
        "layers on a mixture": real_nvp(position),
    }


def default_local(flow: Flow, position: PyTree) -> LocalKernel:
    """HMC: in the latent space of a flow with layers, or for funnels and ridges, which has made them round; with the
    metric that a mixture has learned; else in units of each coordinate."""
    params = jax.eval_shape(flow.init, jax.random.key(0), position)
    if has_layers(params) or isinstance(params, WarpedParams):
        return neutra(LATENT, flow) if flow.bijection is not None else LOCAL
    return within_modes(LOCAL) if isinstance(params, FlowParams) else LOCAL


def search(rng_key, logdensity_fn, start, *, num_chains, num_particles, local, progress_bar) -> tuple[PyTree, PyTree]:
    """Particles from a broad density: `num_chains` of them, spread over all ancestors, and the others. There is no flow
    yet for a `local` that moves in its latent space; that, and None, is LOCAL here."""
    local = LOCAL if local is None else local
    check_local(local)
    local = LOCAL if asks_for(local, "params") else local
    if num_chains > num_particles:
        raise ValueError(f"num_chains = {num_chains} must not exceed num_particles = {num_particles}.")
    found = tempered_smc(
        rng_key,
        logdensity_fn,
        start,
        num_particles=num_particles,
        local=local,
        num_local_steps=SMC_STEPS,
        progress_bar=progress_bar,
    )
    # resampling has left particles of one ancestor side by side
    chosen = np.arange(num_chains) * num_particles // num_chains
    others = np.setdiff1d(np.arange(num_particles), chosen)
    positions = jax.tree.map(np.asarray, found.positions)  # on the host, where nothing is compiled
    return tuple(jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), positions) for rows in (chosen, others))  # noqa: B023
