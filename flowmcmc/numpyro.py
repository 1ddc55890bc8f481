"""NumPyro models for `flowmcmc.sample`, and a kernel of ``numpyro.infer.MCMC``; ``import flowmcmc`` loads neither."""

from flowmcmc.bridges.numpyro import NumpyroModel, from_numpyro
from flowmcmc.bridges.numpyro_kernel import FlowMCMC

__all__ = ["FlowMCMC", "NumpyroModel", "from_numpyro"]
