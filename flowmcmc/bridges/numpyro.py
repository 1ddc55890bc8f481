"""NumPyro models: their density, prior and sites for `flowmcmc.sample`; the kernel is in ``numpyro_kernel``.

Sites live on the unconstrained space, with the Jacobian in the density; NumPyro's own functions go there and back.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from flowmcmc.base import LogDensity
from flowmcmc.bridges.numpyro_kernel import check_numpyro_model
from flowmcmc.ground.checks import check_names
from flowmcmc.ground.density import Density
from flowmcmc.ground.leaves import leaf_names
from flowmcmc.reading.datatree import to_datatree
from flowmcmc.running.run import Trace

__all__ = ["NumpyroModel", "from_numpyro"]


class NumpyroModel(NamedTuple):
    """A NumPyro model as plain functions.

    Attributes
    ----------
    logdensity_fn
        Log density of one unconstrained position, a dict of its latent sites.
    prior
        The prior on the same space, a `Density`: where `sample` may start from.
    constrain
        One unconstrained position to all sites by name, deterministic ones included.
    """

    logdensity_fn: LogDensity
    prior: Density
    constrain: Callable

    def to_datatree(self, result):
        """The DataTree of a `SampleResult` with the model's own sites in ``posterior``."""
        constrained = jax.jit(lambda draws: jax.lax.map(jax.vmap(self.constrain), draws))(result.trace.position)
        trace = Trace(jax.device_get(constrained), result.trace.info)
        return to_datatree(trace, warmup=result.warmup._replace(position=None), attrs=result.settings)


def from_numpyro(model: Callable, *args, **kwargs) -> NumpyroModel:
    """Take a NumPyro model to `flowmcmc.sample`.

    Parameters
    ----------
    model
        A NumPyro model whose latent sites are continuous.
    args, kwargs
        Its arguments, data among them.

    Returns
    -------
    NumpyroModel
        ``logdensity_fn`` of one unconstrained position (a dict of its latent sites), in nats; ``prior``, a `Density` on
        the same space; ``constrain``, from one such position to all sites by name; and a method
        ``to_datatree(result)``.

    Raises
    ------
    ValueError
        For what would silently be wrong: discrete latent sites, ``numpyro.param`` sites, plates that subsample, no
        latent site, improper priors that cannot be drawn from; and for sites whose names a DataTree cannot hold.

    Example
    -------
    >>> bridge = from_numpyro(model, data)
    >>> result = flowmcmc.sample(0, bridge.logdensity_fn, bridge.prior)
    >>> bridge.to_datatree(result).posterior
    """
    trace = check_numpyro_model(model, args, kwargs)
    observed = [name for name, site in trace.items() if site["type"] == "sample" and site["is_observed"]]
    kept = {n: s["value"] for n, s in trace.items() if s["type"] in ("sample", "deterministic") and n not in observed}
    check_names("model", leaf_names(kept), [jnp.ndim(leaf) for leaf in jax.tree.leaves(kept)])
    # hidden by name, because the Jacobians that NumPyro adds are observed sites too
    latent = handlers.block(model, hide=observed)

    def logdensity_fn(position):
        return -jnp.asarray(potential_energy(model, args, kwargs, position))

    def prior_log_prob(position):
        return -jnp.asarray(potential_energy(latent, args, kwargs, position))

    def prior_sample(rng_key):
        trace = handlers.trace(handlers.seed(latent, rng_key)).get_trace(*args, **kwargs)
        sites = {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}
        return jax.tree.map(jnp.asarray, unconstrain_fn(latent, args, kwargs, sites))

    constrain = partial(constrain_fn, model, args, kwargs, return_deterministic=True)
    return NumpyroModel(logdensity_fn, Density(prior_log_prob, prior_sample), constrain)
