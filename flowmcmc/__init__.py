"""flowmcmc: local BlackJAX kernels, and jumps proposed by a normalizing flow trained on the chains, kept exact.

Start with `sample` and `summary`. The core in reading order: ``base``, ``kernels.imh``, ``kernels.compose``,
``adaptation.rounds``, ``adaptation.adaptive``, ``running.run``; then ``sampling``, which puts it together.
"""

from flowmcmc import losses
from flowmcmc.adaptation.adaptive import adaptive
from flowmcmc.adaptation.fit import fit_flow
from flowmcmc.adaptation.frozen import freeze
from flowmcmc.adaptation.rounds import Tuning
from flowmcmc.base import Bijection, Flow
from flowmcmc.bridges.constraints import constrained
from flowmcmc.flows import bent_mixture, funnel_mixture, gaussian_mixture, marginal_mixtures, real_nvp, spline_flow
from flowmcmc.ground.density import Density, normal, uniform
from flowmcmc.ground.devices import chain_mesh, shard_chains
from flowmcmc.kernels.compose import cycle, vmap_chains
from flowmcmc.kernels.imh import imh
from flowmcmc.kernels.isir import isir
from flowmcmc.kernels.jittered import jittered
from flowmcmc.kernels.neutra import neutra
from flowmcmc.kernels.tempering import Particles, tempered_smc
from flowmcmc.more.to_disk import draw_to_disk
from flowmcmc.more.until import draw_until
from flowmcmc.plots import plot_chains, plot_flow, plot_modes, plot_pairs, plot_ranks, plot_warmup
from flowmcmc.plots.report import plot_report
from flowmcmc.reading.datatree import to_datatree
from flowmcmc.reading.diagnostics import importance, mode_weights, nested_rhat, rejections
from flowmcmc.reading.evidence import LogZ, log_evidence, log_z_bridge, log_z_importance
from flowmcmc.reading.model_choice import model_weights
from flowmcmc.reading.summary import Summary, summary
from flowmcmc.result import SampleResult
from flowmcmc.running.run import run
from flowmcmc.sampling import sample

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
