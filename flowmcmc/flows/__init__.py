"""Normalizing flows, each a base density pushed forward by an invertible map, as a `flowmcmc.Flow`."""

from flowmcmc.flows.bend import bent_mixture
from flowmcmc.flows.funnel import funnel_mixture
from flowmcmc.flows.layered import FlowParams, gaussian_mixture, real_nvp, spline_flow
from flowmcmc.flows.marginals import marginal_mixtures

__all__ = [
    "FlowParams",
    "bent_mixture",
    "funnel_mixture",
    "gaussian_mixture",
    "marginal_mixtures",
    "real_nvp",
    "spline_flow",
]
