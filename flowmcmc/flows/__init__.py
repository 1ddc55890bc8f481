"""Normalizing flows behind the three functions of `flowmcmc.Flow`."""

from flowmcmc.flows.flow import FlowParams, gaussian_mixture, real_nvp, spline_flow, trimmed
from flowmcmc.flows.funnel import FunnelParams, funnel_mixture
from flowmcmc.flows.marginals import marginal_mixtures

__all__ = [
    "FlowParams",
    "FunnelParams",
    "funnel_mixture",
    "gaussian_mixture",
    "marginal_mixtures",
    "real_nvp",
    "spline_flow",
    "trimmed",
]
