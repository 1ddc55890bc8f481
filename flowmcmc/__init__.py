"""flowmcmc: local BlackJAX kernels, and jumps proposed by a normalizing flow trained on the chains, kept exact.

Start with `sample` and `summary`. The core in reading order: ``base``, ``imh``, ``compose``, ``rounds``, ``adaptive``,
``run``.
"""

from flowmcmc import losses
from flowmcmc.adaptive import adaptive
from flowmcmc.base import Bijection, Flow
from flowmcmc.compose import cycle, vmap_chains
from flowmcmc.constraints import constrained
from flowmcmc.datatree import to_datatree
from flowmcmc.density import Density, normal, uniform
from flowmcmc.devices import chain_mesh, shard_chains
from flowmcmc.diagnostics import importance, mode_weights, nested_rhat, rejections
from flowmcmc.evidence import LogZ, log_evidence, log_z_bridge, log_z_importance
from flowmcmc.fit import fit_flow
from flowmcmc.flows import bent_mixture, funnel_mixture, gaussian_mixture, marginal_mixtures, real_nvp, spline_flow
from flowmcmc.imh import imh
from flowmcmc.isir import isir
from flowmcmc.local import jittered
from flowmcmc.model_choice import model_weights
from flowmcmc.neutra import neutra
from flowmcmc.plots import plot_chains, plot_flow, plot_modes, plot_pairs, plot_ranks, plot_warmup
from flowmcmc.report import plot_report
from flowmcmc.result import SampleResult
from flowmcmc.rounds import Tuning, freeze
from flowmcmc.run import run
from flowmcmc.sample import sample
from flowmcmc.summary import Summary, summary
from flowmcmc.tempering import Particles, tempered_smc
from flowmcmc.to_disk import draw_to_disk
from flowmcmc.until import draw_until

__all__ = [
    "Bijection",
    "Density",
    "Flow",
    "LogZ",
    "Particles",
    "SampleResult",
    "Summary",
    "Tuning",
    "adaptive",
    "bent_mixture",
    "chain_mesh",
    "constrained",
    "cycle",
    "draw_to_disk",
    "draw_until",
    "fit_flow",
    "freeze",
    "funnel_mixture",
    "gaussian_mixture",
    "imh",
    "importance",
    "isir",
    "jittered",
    "log_evidence",
    "log_z_bridge",
    "log_z_importance",
    "losses",
    "marginal_mixtures",
    "mode_weights",
    "model_weights",
    "nested_rhat",
    "neutra",
    "normal",
    "plot_chains",
    "plot_flow",
    "plot_modes",
    "plot_pairs",
    "plot_ranks",
    "plot_report",
    "plot_warmup",
    "real_nvp",
    "rejections",
    "run",
    "sample",
    "shard_chains",
    "spline_flow",
    "summary",
    "tempered_smc",
    "to_datatree",
    "uniform",
    "vmap_chains",
]
