"""What `sample` takes where nothing is said: flows, from the cheapest on, local kernels, and a search for the start."""

from functools import partial

import blackjax
import jax

from flowmcmc.adaptation.training import has_layers
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
from flowmcmc.kernels.jittered import jittered, within_modes
from flowmcmc.kernels.neutra import neutra

__all__ = ["default_flows", "default_local"]

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
