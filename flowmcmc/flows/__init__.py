"""Normalizing flows behind the three functions of `flowmcmc.Flow`."""

from flowmcmc.flows.flow import FlowParams, gaussian_mixture, real_nvp, spline_flow, trimmed

__all__ = ["FlowParams", "gaussian_mixture", "real_nvp", "spline_flow", "trimmed"]
