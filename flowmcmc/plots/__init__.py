"""Pictures of a run, one function each; every one returns a ``matplotlib.figure.Figure`` and saves it, given a path.

``modes``: the draws, and how chains move between modes. ``flow``: the flow beside the chains. ``sampler``: warm-up, and
whether chains agree.
"""

from flowmcmc.plots.flow import plot_flow
from flowmcmc.plots.modes import plot_chains, plot_modes, plot_pairs
from flowmcmc.plots.sampler import plot_ranks, plot_warmup

__all__ = ["plot_chains", "plot_flow", "plot_modes", "plot_pairs", "plot_ranks", "plot_warmup"]
