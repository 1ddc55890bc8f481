"""Normalizing flows behind the three functions of `flowmcmc.Flow`."""

from flowmcmc.flows.bend import bent_mixture
from flowmcmc.flows.flow import FlowParams, gaussian_mixture, num_components_of, real_nvp, spline_flow, trimmed
from flowmcmc.flows.funnel import funnel_mixture
from flowmcmc.flows.marginals import marginal_mixtures
from flowmcmc.flows.warped import WarpedParams

__all__ = [
    "FlowParams",
    "WarpedParams",
    "bent_mixture",
    "funnel_mixture",
    "gaussian_mixture",
    "marginal_mixtures",
    "num_components_of",
    "real_nvp",
    "spline_flow",
    "trimmed",
]
