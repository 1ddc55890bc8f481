"""Looking at a trained model of an experiment: on a grid in two dimensions, above with chains and a flow of their own.

In two dimensions the model is integrated on a grid. Above, chains with a flow of their own, half of them started at
data and half at the tilt, draw from it whatever trained it; log Z is the bridge between their flow and their draws, and
the weights of modes are their share of draws.
"""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from ebm.experiments.methods import Setting
from ebm.experiments.settings import Experiment
from flowmcmc import adaptive, freeze, gaussian_mixture, run
from flowmcmc.reading.evidence import combine_estimates
from flowmcmc.running.run import keep_info

__all__ = ["Probe", "evaluate_on_grid", "fresh_chains", "grid_points", "log_density_image", "mode_shares"]


class Probe:
    """Draws from the model with a flow of their own, compiled once for all parameters."""

    def __init__(self, experiment: Experiment, setting: Setting, data, test, num_chains: int = 256):
        self.experiment, self.data, self.test = experiment, data[: num_chains // 2], test
        position = data[0]
        flow = gaussian_mixture(position, num_components=experiment.num_components)
        sampler = partial(adaptive, local=blackjax.mala, flow=flow, num_local_steps=4, num_flow_steps=2)
        frozen = partial(freeze, local=blackjax.mala, flow=flow, num_local_steps=4, num_flow_steps=2)

        @jax.jit
        def probe(rng_key, theta, near):
            logdensity = partial(setting.model.logdensity, theta)
            key_start, key_init, key_warm, key_draw, key_flow = jax.random.split(rng_key, 5)
            broad = jax.vmap(setting.model.tilt.sample)(jax.random.split(key_start, num_chains // 2))
            starts = jnp.concatenate([near, broad])

            def moving(algorithm, state, key, num):
                def one(state, key):
                    state, info = algorithm.step(key, state)
                    return state, (state.position, jnp.mean(getattr(info, "round", info).flow_acceptance_rate))

                return jax.lax.scan(one, state, jax.random.split(key, num))

            warming = sampler(logdensity, history_size=16_384)
            state, _ = moving(warming, warming.init(starts, key_init), key_warm, 64)
            fixed = frozen(logdensity, tuning=state.tuning)
            _, (draws, acceptance) = moving(fixed, fixed.init(state.position), key_draw, 320)
            draws = draws[20:]
            params = state.tuning.params

            def log_weight(x):
                return logdensity(x) - flow.log_prob(params, x)

            fresh, log_q = jax.vmap(flow.sample_and_log_prob, (0, None))(jax.random.split(key_flow, 10_000), params)
            on_flow = jax.vmap(logdensity)(fresh) - log_q
            on_draws = jax.lax.map(jax.vmap(log_weight), draws)
            return draws, on_flow, on_draws, jnp.mean(acceptance)

        self.draw = probe
        self.logdensities = jax.jit(jax.vmap(setting.model.logdensity, (None, 0)))

    def __call__(self, rng_key, theta) -> dict:
        import arviz as az

        draws, on_flow, on_draws, acceptance = self.draw(rng_key, theta, self.data)
        draws = np.asarray(draws).swapaxes(0, 1)
        log_z = combine_estimates(np.asarray(on_flow, float), np.asarray(on_draws, float).T, is_bridged=True)
        target = self.experiment.target
        excess = np.asarray(jax.vmap(target.logdensity)(self.test) - self.logdensities(theta, self.test), float)
        labels = np.asarray(target.labels(draws.reshape(-1, target.dim))).reshape(draws.shape[:2])
        weights = np.array([(labels == mode).mean() for mode in range(len(target.weights))])
        errors = [float(az.mcse((labels == mode).astype(float))) for mode in range(len(target.weights))]
        rhat = az.rhat(az.from_dict({"posterior": {"x": draws}})).x.values
        return {
            "weights": weights,
            "weight_mcse": errors,
            "total_variation": 0.5 * np.abs(weights - target.weights).sum(),
            "kl": excess.mean() + log_z.log_z,
            "kl_error": np.hypot(excess.std() / np.sqrt(len(excess)), log_z.error),
            "log_z": log_z.log_z,
            "log_z_error": log_z.error,
            "log_z_problems": list(log_z.problems),
            "probe_rhat": rhat.max(),
            "probe_acceptance": acceptance,
        }


def evaluate_on_grid(experiment: Experiment, setting: Setting, theta, test) -> dict:
    """Weights, KL and log density errors of a two-dimensional model."""
    target = experiment.target
    points, labels, cell = grid_points(experiment, 400)
    log_p = jax.jit(jax.vmap(setting.model.logdensity, (None, 0)))
    values = np.asarray(log_p(theta, points), float)
    log_z = float(np.logaddexp.reduce(values) + np.log(cell))
    weights = np.bincount(labels, np.exp(values - log_z) * cell, minlength=len(target.weights))
    excess = np.asarray(jax.vmap(target.logdensity)(test), float) - np.asarray(log_p(theta, test), float) + log_z
    truth = np.asarray(jax.vmap(target.logdensity)(points), float)
    # where the truth has not vanished: within 10 nats of its highest density
    is_near = truth > truth.max() - 10
    return {
        "weights": weights,
        "total_variation": 0.5 * np.abs(weights - target.weights).sum(),
        "kl": excess.mean(),
        "kl_error": excess.std() / np.sqrt(len(excess)),
        "log_z": log_z,
        "median_squared_error": np.median(excess**2),
        "median_squared_error_grid": np.median((values - log_z - truth)[is_near] ** 2),
    }


def log_density_image(experiment: Experiment, setting: Setting, theta, num: int = 60) -> dict:
    """Log density on a coarse grid as wide as the data, below its highest value, rounded, for the figures."""
    points, _, _ = grid_points(experiment, num, 1.1)
    values = np.asarray(jax.vmap(setting.model.logdensity, (None, 0))(theta, points), float)
    log_p = np.maximum(values - values.max(), -30).round(1)
    return {"reach": float(points.max()), "log_density": log_p.reshape(num, num).T}


def grid_points(experiment: Experiment, num: int, width: float = 2.0):
    """Grid points (n, 2), their modes, and the area of a cell, on a box `width` times as wide as the data."""
    reach = width * float(jnp.abs(experiment.target.sample(jax.random.key(0), 10_000)).max())
    side = np.linspace(-reach, reach, num)
    points = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2).astype(jnp.result_type(float))
    return points, np.asarray(experiment.target.labels(jnp.asarray(points))), (side[1] - side[0]) ** 2


def fresh_chains(rng_key, setting: Setting, trained, experiment: Experiment, num_chains: int = 128):
    """r-hat over independent chains of the method's own sampler from the tilt, worst coordinate, and mode weights."""
    import arviz as az

    tuning = trained.state.sampler.method.sampler.tuning
    kernel = freeze(
        partial(setting.model.logdensity, trained.theta),
        setting.local,
        setting.flow,
        tuning,
        num_local_steps=8,
        num_flow_steps=setting.num_flow_steps,
    )
    starts = jax.vmap(setting.model.tilt.sample)(jax.random.split(rng_key, num_chains))
    state, _ = run(rng_key, kernel, starts, 100, keep=keep_info, chunk_size=100, progress_bar=False)
    _, trace = run(jax.random.fold_in(rng_key, 1), kernel, state.position, 1000, progress_bar=False)
    draws = trace.position.swapaxes(0, 1)
    rhat = az.rhat(az.from_dict({"posterior": {"x": draws}})).x.values
    return float(rhat.max()), mode_shares(experiment, draws.reshape(-1, experiment.target.dim))


def mode_shares(experiment: Experiment, points) -> list[float]:
    """Fraction of points in each mode."""
    labels = np.asarray(experiment.target.labels(jnp.asarray(points)))
    return (np.bincount(labels, minlength=len(experiment.target.weights)) / len(labels)).tolist()
