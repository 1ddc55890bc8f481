"""Training objectives that need no draws from the model: each a `Method`, each in one file."""

from ebm.objectives.denoising_score_matching import denoising_score_matching
from ebm.objectives.energy_discrepancy import energy_discrepancy
from ebm.objectives.flow_contrastive import flow_contrastive
from ebm.objectives.nce import mixed, nce
from ebm.objectives.score_matching import score_matching
from ebm.objectives.sliced_score_matching import sliced_score_matching

__all__ = [
    "denoising_score_matching",
    "energy_discrepancy",
    "flow_contrastive",
    "mixed",
    "nce",
    "score_matching",
    "sliced_score_matching",
]
