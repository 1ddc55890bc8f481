"""The experiments: the paper's data, network and tilt, with D' and a wider network beside them.

D is run with the separation that the results suggest (0.591 sqrt(2 ln d)) and, as "stated", with 0.5919; with
the paper's network and, as "wide", with a first layer of more than d units; "unequal" is D', weights .1 .2 .3 .4.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ebm.energy import leaky_relu
from ebm.experiments import targets
from ebm.experiments.targets import Target
from flowmcmc import Flow, gaussian_mixture, real_nvp

__all__ = ["EXPERIMENTS", "Experiment"]


class Experiment(NamedTuple):
    """A target, how much data, the network, Langevin steps of the baselines, and CPU seconds for training."""

    target: Target
    num_data: int
    hidden: tuple[int, ...]
    activation: Callable
    ula_step: float
    seconds: float
    learning_rate: float = 3e-3
    num_components: int = 8
    has_layers: bool = False

    @property
    def scale(self) -> float:
        """Largest standard deviation of a coordinate, of one large sample, so that it is the same for every seed."""
        return float(jnp.std(self.target.sample(jax.random.key(0), 50_000), axis=0).max())

    def flow(self) -> Flow:
        """A Gaussian mixture fitted by EM; where `has_layers`, under coupling layers."""
        position = jnp.zeros(self.target.dim)
        if not self.has_layers:
            return gaussian_mixture(position, num_components=self.num_components)
        return real_nvp(position, num_components=self.num_components, hidden=16)


Network = tuple[tuple[int, ...], Callable]
PAPER: Network = ((32, 64, 64), leaky_relu)  # the network of the paper
WIDE: Network = ((256, 128, 128), jax.nn.silu)  # a first layer of more than d units


def growing(dim: int, network: Network, *, seconds: float, separation: float | None = None, unequal: bool = False):
    """D, by default with the separation that the paper's results suggest."""
    apart = 0.591 * math.sqrt(2 * math.log(dim)) if separation is None else separation
    weights = (0.1, 0.2, 0.3, 0.4) if unequal else 4 * (0.25,)
    target = targets.growing_dimension(dim, separation=apart, weights=weights)
    return Experiment(target, 50_000, *network, 1e-3, seconds, 1e-3, has_layers=False)


EXPERIMENTS: dict[str, Experiment] = {
    "A": Experiment(targets.two_modes(), 16_384, *PAPER, 1e-2, 10),
    "B": Experiment(targets.four_modes(), 60_000, *PAPER, 0.125**2 / 2, 20),
    "gaussians": Experiment(targets.eight_gaussians(), 60_000, *PAPER, 0.125**2 / 2, 30),
    "rings": Experiment(targets.rings(), 60_000, *PAPER, 0.125**2 / 2, 30, num_components=16, has_layers=True),
}
for dim, seconds in {16: 20, 32: 30, 64: 60}.items():
    EXPERIMENTS[f"D{dim}"] = growing(dim, PAPER, seconds=seconds / 2)
    EXPERIMENTS[f"D{dim}-stated"] = growing(dim, PAPER, seconds=seconds / 2, separation=0.5919)
    EXPERIMENTS[f"D{dim}-wide"] = growing(dim, WIDE, seconds=seconds)
    EXPERIMENTS[f"D{dim}-unequal"] = growing(dim, WIDE, seconds=seconds, unequal=True)
