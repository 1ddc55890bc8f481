"""Normalizing flows behind the three functions of `flowmcmc.Flow`."""

from flowmcmc.flows.bend import bent_mixture
from flowmcmc.flows.funnel import funnel_mixture
from flowmcmc.flows.layered import (
    FlowParams,
    drop_unused_components,
    gaussian_mixture,
    num_components_of,
    real_nvp,
    spline_flow,
)
from flowmcmc.flows.marginals import marginal_mixtures
from flowmcmc.flows.warped import WarpedParams

__all__ = [
    "FlowParams",
    "WarpedParams",
    "bent_mixture",
    "drop_unused_components",
    "funnel_mixture",
    "gaussian_mixture",
    "marginal_mixtures",
    "num_components_of",
    "real_nvp",
    "spline_flow",
]
