"""Which of several models the data favour, from their evidences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from flowmcmc.ground.arguments import check_has, describe_value
from flowmcmc.reading.evidence import LogZ

__all__ = ["ModelWeights", "model_weights"]


class ModelWeights(NamedTuple):
    """Posterior probabilities `weights` and standard errors `errors` of models, and `problems` of their evidences."""

    weights: np.ndarray
    errors: np.ndarray
    problems: tuple[str, ...]


def model_weights(log_zs: Sequence[LogZ], prior=None) -> ModelWeights:
    """Posterior probabilities of models, w_i = p_i Z_i / sum_j p_j Z_j, errors to first order for independent runs.

    Reference: Kass and Raftery (1995).

    Parameters
    ----------
    log_zs
        One for each model, of the same data, with all constants of likelihood and prior.
    prior
        Prior probabilities p_i up to a common factor; None: all equal.

    Returns
    -------
    ModelWeights
        ``weights`` (models,), which sum to one, their standard ``errors`` (models,), and ``problems``, those of the
        evidences with the index of the model before each.

    Raises
    ------
    ValueError
        If an evidence is not finite, or `prior` is not a number >= 0 for each model, or all zero.
    """
    for one in log_zs:
        check_has("log_zs", one, ("log_z", "error"), "a sequence of LogZ, such as log_evidence gives")
    log_z, error = np.array([one[:2] for one in log_zs], float).reshape(-1, 2).T
    try:
        prior = np.ones(len(log_z)) if prior is None else np.asarray(prior, float)
    except (TypeError, ValueError):
        raise TypeError(f"prior must be one number for each model, got {describe_value(prior)}.") from None
    if not len(log_z) or not np.isfinite([log_z, error]).all():
        raise ValueError(f"log_zs must be finite with finite errors, got {log_z} +- {error}: leave out or mend a run.")
    if prior.shape != log_z.shape or not np.isfinite(prior).all() or prior.min() < 0 or not prior.any():
        raise ValueError(f"prior must be one number >= 0 for each of {len(log_z)} models, not all zero; got {prior}.")
    with np.errstate(divide="ignore"):
        weights = softmax(log_z + np.log(prior))
    errors = weights * np.sqrt((np.eye(len(weights)) - weights) ** 2 @ error**2)  # the matrix: d log w_i / d log Z_j
    return ModelWeights(weights, errors, tuple(f"model {k}: {why}" for k, z in enumerate(log_zs) for why in z.problems))
