"""The flows that a default run may take, as a table: what each is for, what it costs, and when it is promising.

A flow of a new family is one file in ``flows/`` and one row here, at its place in the order of prices; CONTRIBUTING.md
tells the rest.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import blackjax
import jax
import numpy as np

from flowmcmc.adaptation.training import is_trained
from flowmcmc.base import Flow, LocalKernel, PyTree
from flowmcmc.choosing.calibration import HOPELESS, MIN_FIRST_GAIN
from flowmcmc.choosing.shapes import is_product, is_ridge, product_threshold
from flowmcmc.ground.compiling import output_shape
from flowmcmc.kernels.jittered import jittered, within_modes
from flowmcmc.kernels.neutra import neutra

__all__ = ["LOCAL", "Candidate", "FirstResults", "Outlook", "candidate_of", "default_candidates", "learns_by_gradients"]

LOCAL = jittered(partial(blackjax.hmc, num_integration_steps=8))
LATENT = jittered(partial(blackjax.hmc, num_integration_steps=4))


class Outlook(IntEnum):
    """What states promise of a candidate: not worth a try; worth one where those before are not enough; better than
    those before, however good these are."""

    NONE = 0
    FAIR = 1
    BETTER = 2


class FirstResults(NamedTuple):
    """What is known after the first candidate: `rows` (n, d) of states, the held-out `loss` of its flow, nats, and
    its `acceptance_rate`. Both numbers are None where it took no round, as another promised more."""

    rows: np.ndarray
    loss: float | None
    acceptance_rate: float | None


class Candidate(NamedTuple):
    """A flow that a run may take, with the local kernel that goes with it.

    Attributes
    ----------
    name
        As ``result.settings["flow"]`` has it.
    flow, local
        Built for one position.
    price
        Relative cost of one proposal; a Gaussian mixture is 1. A dearer flow must be more efficient.
    outlook
        What the states after the first candidate promise of this one.
    threshold
        Optional, ``rows -> nats``: if the first candidate's first fit has a held-out loss above this, its rounds are
        skipped, since this candidate promises better.
    min_first_gain
        Nats by which its first fit must gain on the flow before, to take any round.
    follows_ridges
        Whether its local moves follow a neck or a ridge, so that each block of rounds takes it further.
    """

    name: str
    flow: Flow
    local: LocalKernel
    price: float = 1.0
    outlook: Callable[[FirstResults], Outlook] = lambda results: Outlook.FAIR
    threshold: Callable[[np.ndarray], float] | None = None
    min_first_gain: float | None = None
    follows_ridges: bool = False


def default_candidates(position: PyTree) -> list[Candidate]:
    """From the cheapest to the dearest: for modes, independent wells, a neck, a ridge, any shape of mode, several."""
    # a run with a flow of the user's needs none of them
    from flowmcmc.flows import bent_mixture, funnel_mixture, gaussian_mixture, marginal_mixtures, real_nvp

    mixture, marginals = gaussian_mixture(position), marginal_mixtures(position)
    funnel, bent = funnel_mixture(position), bent_mixture(position)
    layers, both = real_nvp(position, num_components=1, num_layers=8), real_nvp(position)
    ridges = {"min_first_gain": MIN_FIRST_GAIN, "follows_ridges": True}
    return [
        Candidate("mixture", mixture, within_modes(LOCAL, mixture)),
        Candidate("marginals", marginals, LOCAL, outlook=product_outlook, threshold=product_threshold),
        Candidate("funnel", funnel, neutra(LATENT, funnel), price=2.0, outlook=neck_outlook, **ridges),
        Candidate("bent", bent, neutra(LATENT, bent), price=3.0, **ridges),
        Candidate("layers", layers, neutra(LATENT, layers), price=10.0),
        Candidate("layers on a mixture", both, neutra(LATENT, both), price=12.0),
    ]


def candidate_of(flow: Flow) -> Candidate:
    """A flow of the user's with a local kernel that suits it: with the metric that it has learned, else in its latent
    space, which it makes round, else in units of each coordinate."""
    if flow.metric is not None:
        return Candidate("given", flow, within_modes(LOCAL, flow))
    return Candidate("given", flow, LOCAL if flow.bijection is None else neutra(LATENT, flow))


def learns_by_gradients(flow: Flow, position: PyTree) -> bool:
    """Whether gradients have anything to train in a flow; what they leave is fitted."""
    return is_trained(flow, output_shape(flow.init, jax.random.key(0), position))


def product_outlook(results: FirstResults) -> Outlook:
    """Mixtures of single coordinates are for states that say so."""
    if results.loss is None or results.acceptance_rate is None:
        return Outlook.BETTER
    is_hopeless = results.acceptance_rate < HOPELESS
    is_promised = is_product(results.rows, results.loss, is_hopeless=is_hopeless)
    return Outlook.BETTER if is_promised else Outlook.NONE


def neck_outlook(results: FirstResults) -> Outlook:
    """On a ridge scales do not follow any coordinate."""
    return Outlook.NONE if is_ridge(results.rows) else Outlook.FAIR
