"""ebm: energy-based models p(x) = exp(-E(x)) rho(x) / Z, trained with negatives from flow-assisted chains.

Start with `fit`, `health` and `finish`. In reading order: ``model``, ``method``, ``negatives``, ``train``, ``fit``.
"""

from ebm.energy import Energy, conv, mlp
from ebm.fitting import Fit, fit
from ebm.judging.annealing import ais, ais_bracket, reverse_ais
from ebm.judging.evaluate import kl_divergence, mode_weights_importance
from ebm.judging.health import Health, health
from ebm.judging.planar import grid, grid_mode_weights
from ebm.judging.plots import plot_energy
from ebm.judging.two_sample import c2st, mmd
from ebm.method import Method, MethodInfo, NegativeSampler, maximum_likelihood
from ebm.model import Model, tilted
from ebm.negatives.chains import contrastive_divergence, local_tuning, persistent, short_run
from ebm.negatives.langevin import gradient_ascent, ula
from ebm.negatives.weighted import importance_sampling, jarzynski
from ebm.objectives.coop_flow import coop_flow
from ebm.objectives.denoising_score_matching import denoising_score_matching
from ebm.objectives.energy_discrepancy import energy_discrepancy
from ebm.objectives.flow_contrastive import flow_contrastive
from ebm.objectives.nce import mixed, nce
from ebm.objectives.score_matching import score_matching
from ebm.objectives.sliced_score_matching import sliced_score_matching
from ebm.train import default_optimizer, trainer
from ebm.trained import EBM, finish, load
from flowmcmc import Density, normal, uniform

__all__ = [
    "EBM",
    "Density",
    "Energy",
    "Fit",
    "Health",
    "Method",
    "MethodInfo",
    "Model",
    "NegativeSampler",
    "ais",
    "ais_bracket",
    "c2st",
    "contrastive_divergence",
    "conv",
    "coop_flow",
    "default_optimizer",
    "denoising_score_matching",
    "energy_discrepancy",
    "finish",
    "fit",
    "flow_contrastive",
    "gradient_ascent",
    "grid",
    "grid_mode_weights",
    "health",
    "importance_sampling",
    "jarzynski",
    "kl_divergence",
    "load",
    "local_tuning",
    "maximum_likelihood",
    "mixed",
    "mlp",
    "mmd",
    "mode_weights_importance",
    "nce",
    "normal",
    "persistent",
    "plot_energy",
    "reverse_ais",
    "score_matching",
    "short_run",
    "sliced_score_matching",
    "tilted",
    "trainer",
    "ula",
    "uniform",
]
