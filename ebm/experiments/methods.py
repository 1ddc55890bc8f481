"""The methods, each as one function from an experiment and its data to a model, a way to train it, and a sampler.

Where the paper states a setting that a CPU cannot afford (512 Langevin steps for an update), ours is stated here. All
share network, optimiser, schedule, batches and averaging, and are compared at equal CPU seconds.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import blackjax
import jax.numpy as jnp

from ebm.energy import mlp
from ebm.experiments.settings import Experiment
from ebm.method import Method, maximum_likelihood
from ebm.model import Model, tilted
from ebm.negatives.chains import contrastive_divergence, local_tuning, persistent
from ebm.negatives.langevin import ula
from ebm.negatives.weighted import importance_sampling, jarzynski
from ebm.objectives.coop_flow import coop_flow
from ebm.objectives.denoising_score_matching import denoising_score_matching
from ebm.objectives.energy_discrepancy import energy_discrepancy
from ebm.objectives.nce import mixed, nce
from flowmcmc import Density, Flow, adaptive, fit_flow, freeze, gaussian_mixture, neutra, normal, real_nvp

__all__ = ["METHODS", "Setting"]


class Setting(NamedTuple):
    """A model to train, how, and the sampler that draws from it in the end (``logdensity_fn, tuning`` given)."""

    model: Model
    method: Method
    local: Callable
    flow: Flow | None
    num_flow_steps: int


def with_normal_tilt(experiment: Experiment, data) -> Model:
    """The energy on rho = N(0, s^2 I), s^2 the largest variance of a coordinate."""
    return with_tilt(experiment, normal(data[0], scale=experiment.scale))


def with_tilt(experiment: Experiment, tilt: Density) -> Model:
    position = jnp.zeros(experiment.target.dim)
    energy = mlp(position, hidden=experiment.hidden, activation=experiment.activation, scale=experiment.scale)
    return Model(*energy, tilt)


def flow_assisted(rng_key, experiment: Experiment, data) -> Setting:
    """The paper's method: persistent chains, flow proposals and MALA, the flow trained on them."""
    model, flow = with_normal_tilt(experiment, data), experiment.flow()
    make_sampler = partial(
        adaptive,
        local=blackjax.mala,
        flow=flow,
        num_local_steps=1,
        num_flow_steps=1,
        num_train_steps=2,
        history_size=16_384,
        refit_every=500,
    )
    return Setting(
        model,
        maximum_likelihood(model, persistent(make_sampler, num_chains=8192, num_active=512)),
        blackjax.mala,
        flow,
        1,
    )


def ula_chains(rng_key, experiment: Experiment, data) -> Setting:
    """Persistent chains with unadjusted Langevin steps, 64 for an update, started from the tilt."""
    model = with_normal_tilt(experiment, data)
    tuning = local_tuning(experiment.ula_step, data[0])
    make_sampler = partial(freeze, local=ula, flow=None, tuning=tuning, num_local_steps=64, num_flow_steps=0)
    negatives = persistent(make_sampler, num_chains=8192, start=model.tilt.sample)
    return Setting(model, maximum_likelihood(model, negatives), ula, None, 0)


def mala_chains(rng_key, experiment: Experiment, data) -> Setting:
    """Persistent chains with MALA at 75 % acceptance, 16 steps for an update, started at data."""
    model = with_normal_tilt(experiment, data)
    negatives = persistent(local_only(blackjax.mala), num_chains=8192)
    return Setting(model, maximum_likelihood(model, negatives), blackjax.mala, None, 0)


def contrastive(rng_key, experiment: Experiment, data) -> Setting:
    """CD-16 with MALA."""
    model = with_normal_tilt(experiment, data)
    negatives = contrastive_divergence(local_only(blackjax.mala))
    return Setting(model, maximum_likelihood(model, negatives), blackjax.mala, None, 0)


def latent(rng_key, experiment: Experiment, data) -> Setting:
    """NT-EBM: the energy tilts a flow fitted to the data and then fixed; MALA moves in its latent space."""
    flow, params = pretrained_flow(rng_key, experiment, data)
    model = with_tilt(experiment, tilted(flow, params))
    local = neutra(blackjax.mala, flow, params)
    negatives = persistent(local_only(local), num_chains=8192, start=model.tilt.sample)
    return Setting(model, maximum_likelihood(model, negatives), local, None, 0)


def cooperative(rng_key, experiment: Experiment, data) -> Setting:
    """CoopFlow, 64 noise-free Langevin steps from the flow."""
    model = with_normal_tilt(experiment, data)
    flow, params = pretrained_flow(rng_key, experiment, data)
    step_size = 5e-4 if experiment.target.dim == 2 else 1e-4
    return Setting(model, coop_flow(model, flow, params, num_steps=64, step_size=step_size), blackjax.mala, None, 0)


def weighted_flow_draws(rng_key, experiment: Experiment, data) -> Setting:
    """Weighted draws of a fixed flow fitted to the data."""
    model, flow = with_normal_tilt(experiment, data), experiment.flow()
    params = fit_flow(rng_key, flow, data[:10_000])
    return Setting(model, maximum_likelihood(model, importance_sampling(flow, params)), blackjax.mala, None, 0)


def jarzynski_walkers(rng_key, experiment: Experiment, data) -> Setting:
    """Weighted walkers from the tilt, MALA between updates."""
    model = with_normal_tilt(experiment, data)
    negatives = jarzynski(local_only(blackjax.mala, 4), model.tilt, num_walkers=1024)
    return Setting(model, maximum_likelihood(model, negatives), blackjax.mala, None, 0)


def nce_normal(rng_key, experiment: Experiment, data) -> Setting:
    """Noise-contrastive estimation, the noise a normal with the data's mean and covariance."""
    noise = fitted_noise(rng_key, gaussian_mixture(data[0], num_components=1, defensive=0.0), data)
    return nce_setting(experiment, data, noise)


def nce_mixture(rng_key, experiment: Experiment, data) -> Setting:
    """The noise a Gaussian mixture fitted to the data."""
    return nce_setting(experiment, data, fitted_noise(rng_key, mixture_flow(experiment, data), data))


def nce_mixed(rng_key, experiment: Experiment, data) -> Setting:
    """Half of the noise from the mixture, half from the tilt."""
    mixture = fitted_noise(rng_key, mixture_flow(experiment, data), data)
    return nce_setting(experiment, data, mixed(mixture, with_normal_tilt(experiment, data).tilt))


def discrepancy(rng_key, experiment: Experiment, data) -> Setting:
    """Energy discrepancy, noise of scale 1 and 16 negatives for each point."""
    model = with_normal_tilt(experiment, data)
    return Setting(model, energy_discrepancy(model, noise_scale=1.0), blackjax.mala, None, 0)


def denoising(rng_key, experiment: Experiment, data) -> Setting:
    """Denoising score matching."""
    model = with_normal_tilt(experiment, data)
    return Setting(model, denoising_score_matching(model, noise_scale=0.1), blackjax.mala, None, 0)


def nce_setting(experiment: Experiment, data, noise: Density) -> Setting:
    model = with_normal_tilt(experiment, data)
    return Setting(model, nce(model, noise), blackjax.mala, None, 0)


def mixture_flow(experiment: Experiment, data) -> Flow:
    return gaussian_mixture(data[0], num_components=experiment.num_components, defensive=0.0)


def fitted_noise(rng_key, flow: Flow, data) -> Density:
    """Noise density for NCE: a flow fitted to data."""
    return tilted(flow, fit_flow(rng_key, flow, data[:10_000]))


def pretrained_flow(rng_key, experiment: Experiment, data):
    """The baselines' RealNVP on a standard normal (two hidden layers of 32), fitted to the data."""
    flow = real_nvp(data[0], num_components=1, num_layers=8, defensive=0.0)
    return flow, fit_flow(rng_key, flow, data[:20_000])


def local_only(local: Callable, num_local_steps: int = 16) -> Callable:
    """Chains without a flow, their step size adapted to 75 % acceptance."""
    return partial(
        adaptive,
        local=local,
        flow=None,
        num_flow_steps=0,
        num_local_steps=num_local_steps,
        target_acceptance_rate=0.75,
        history_size=2048,
    )


METHODS: dict[str, Callable] = {
    "flow": flow_assisted,
    "ula": ula_chains,
    "mala": mala_chains,
    "cd": contrastive,
    "nt": latent,
    "coop": cooperative,
    "importance": weighted_flow_draws,
    "jarzynski": jarzynski_walkers,
    "nce-normal": nce_normal,
    "nce-mixture": nce_mixture,
    "nce-mixed": nce_mixed,
    "discrepancy": discrepancy,
    "dsm": denoising,
}
