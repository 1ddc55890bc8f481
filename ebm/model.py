r"""The model: an energy that tilts a fixed, normalised density.

    p_theta(x) = exp(-E_theta(x)) rho(x) / Z_theta

At E = 0 the model is rho itself, so a tilt near the data leaves little to learn and gives Langevin chains a tail that
holds them. Grenioux, Moulines, Gabrié, arXiv 2306.00684.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from flowmcmc import Density, Flow
from flowmcmc.ground.arguments import check_flow_type, check_has

__all__ = ["Model", "check_has_density", "check_model", "tilted"]

Array = jax.Array


class Model(NamedTuple):
    """An energy and its tilt.

    Attributes
    ----------
    init
        ``rng_key -> theta``.
    energy
        ``(theta, position) -> scalar``.
    tilt
        rho, see `normal`, `uniform`, `tilted`.
    """

    init: Callable
    energy: Callable
    tilt: Density

    def logdensity(self, theta, position) -> Array:
        """log rho(x) - E_theta(x): the log density up to log Z."""
        return self.tilt.log_prob(position) - self.energy(theta, position)


def tilted(flow: Flow, params) -> Density:
    """A flow with parameters that stay fixed as rho (NT-EBM, Nijkamp et al., arXiv 2006.06897).

    Parameters
    ----------
    flow, params
        A normalised density, trained before.

    Returns
    -------
    Density
        ``log_prob(position)``, a scalar in nats, and ``sample(rng_key)``, one position.
    """
    check_flow_type(flow)
    return Density(
        lambda position: flow.log_prob(params, position), lambda key: flow.sample_and_log_prob(key, params)[0]
    )


def check_model(model) -> None:
    """Raise TypeError unless it is a `Model`; an energy alone lacks the tilt."""
    check_has("model", model, ("logdensity", "energy", "tilt"), "ebm.Model(*energy, tilt), say with ebm.normal(x)")


def check_has_density(name: str, density) -> None:
    """Raise TypeError unless it is a `Density`."""
    check_has(name, density, ("log_prob", "sample"), "a Density, such as ebm.normal(x)")
