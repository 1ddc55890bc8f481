"""One run of one experiment: train for a CPU budget, then look at the model beside the truth; a JSON record."""

import os
import platform
import time
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from ebm.experiments.look import Probe, evaluate_on_grid, fresh_chains, grid_points, log_density_image, mode_shares
from ebm.experiments.methods import METHODS, Setting
from ebm.experiments.settings import EXPERIMENTS, Experiment
from ebm.fitting import fit
from ebm.negatives.chains import PersistentState
from ebm.train import default_optimizer, trainer
from flowmcmc import Flow, run
from flowmcmc.running.run import keep_info

__all__ = ["measure"]

NUM_LOOKS = 75
BATCH_SIZE = 512
ROUND_NUMBERS = [round(a * 10**k) for k in range(2, 7) for a in (1, 1.5, 2, 3, 4, 6, 8)]


def measure(name: str, method: str, seed: int, *, num_steps: int | None = None, seconds: float | None = None) -> Any:
    """Train one method on one experiment, and evaluate the model.

    Parameters
    ----------
    name, method
        Keys of `EXPERIMENTS` and `METHODS`.
    seed
        Of everything: data, training, evaluation.
    num_steps
        Updates; None takes as many as fit into the budget, to two digits.
    seconds
        CPU seconds for training (all threads, without compilation); None means the experiment's own.
    """
    began = time.perf_counter(), time.process_time()
    experiment = EXPERIMENTS[name]
    key_data, key_test, key_setting, key_fit, key_probe = jax.random.split(jax.random.key(seed), 5)
    data = experiment.target.sample(key_data, experiment.num_data)
    test = experiment.target.sample(key_test, 10_000)
    setting = METHODS[method](key_setting, experiment, data)
    cost = None
    if num_steps is None:
        cost = cpu_seconds_per_step(setting, experiment, data)
        num_steps = largest_round_number((seconds or experiment.seconds) / cost)
    watch, thetas = Watch(experiment, setting), []

    def monitor(state):
        thetas.append(jax.device_get(state.average))
        return watch(state)

    trained = fit(
        key_fit,
        setting.model,
        data,
        setting.method,
        num_steps=num_steps,
        optimizer=default_optimizer(num_steps, experiment.learning_rate),
        batch_size=BATCH_SIZE,
        monitor=monitor,
        look_every=max(1, num_steps // NUM_LOOKS),
    )
    record = {
        "experiment": name,
        "method": method,
        "seed": seed,
        "command": f"python -m ebm {name} --method {method} --seed {seed} --num-steps {num_steps}",
        "num_steps": num_steps,
        "training_cpu_seconds": watch.seconds,
        "cpu_seconds_per_step_before": cost,
        "num_skipped": int(trained.info.is_skipped.sum()),
        "num_invalid": int(trained.info.method.num_invalid.sum()),
        "local_acceptance": mean_of_last(trained.info.method.local_acceptance_rate),
        "flow_acceptance": mean_of_last(trained.info.method.flow_acceptance_rate),
        "negative_ess": mean_of_last(trained.info.method.ess),
        "method_log_z": mean_of_last(trained.info.method.log_z),
        "truth": experiment.target.weights.tolist(),
        "data_weights": mode_shares(experiment, data),
        "curve": trained.records,
    }
    if trained.pool is not None:
        record["negative_weights"] = mode_shares(experiment, trained.pool)
        record["rhat_fresh"], record["fresh_weights"] = fresh_chains(key_probe, setting, trained, experiment)
    if setting.flow is not None:
        record["flow_kl"] = flow_divergence(experiment, setting.flow, trained, test)
    if experiment.target.dim == 2:
        record |= evaluate_on_grid(experiment, setting, trained.theta, test)
        if seed == 0:
            record["picture"] = log_density_image(experiment, setting, trained.theta)
    else:
        probe = Probe(experiment, setting, data, test)
        looks = sorted({len(thetas) // 4 - 1, len(thetas) // 2 - 1}) if name.endswith("unequal") else []
        record["probed"] = [
            {"step": trained.records[i]["step"], "cpu": trained.records[i]["cpu"], **probe(key_probe, thetas[i])}
            for i in looks
        ]
        record |= probe(key_probe, trained.theta)
    record["cpu_seconds"], record["seconds"] = time.process_time() - began[1], time.perf_counter() - began[0]
    return to_json(record | environment())


def environment() -> dict:
    """Versions of the packages, and the machine."""
    packages = ("flowmcmc", "jax", "blackjax", "flax", "optax", "arviz")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    machine["device"] = jax.devices()[0].device_kind
    return {"versions": {package: version(package) for package in packages}, "machine": machine}


def largest_round_number(wanted: float) -> int:
    """The largest number in ROUND_NUMBERS that is at most `wanted`; the smallest if there is none."""
    return max(n for n in ROUND_NUMBERS if n <= max(wanted, ROUND_NUMBERS[0]))


class Watch:
    """Called between chunks: CPU seconds of training so far, and in two dimensions the weights of the model."""

    def __init__(self, experiment: Experiment, setting: Setting):
        self.seconds, self.last, self.is_first = 0.0, time.process_time(), True
        self.experiment, self.weigh = experiment, None
        if experiment.target.dim == 2:
            points, labels, _ = grid_points(experiment, 120)
            num = len(experiment.target.weights)

            @jax.jit
            def weigh(theta):
                log_p = jax.vmap(setting.model.logdensity, (None, 0))(theta, points)
                return jax.nn.softmax(log_p) @ jax.nn.one_hot(labels, num)

            self.weigh = weigh

    def __call__(self, state) -> dict:
        elapsed = time.process_time() - self.last
        if self.is_first:  # the first chunk compiles, so its time is not counted
            elapsed, self.is_first = 0.0, False
        self.seconds += elapsed
        found: dict[str, Any] = {"cpu": self.seconds}
        if self.weigh is not None:
            found["weights"] = np.asarray(self.weigh(state.average)).tolist()
            found["weights_raw"] = np.asarray(self.weigh(state.theta)).tolist()
        if isinstance(state.method, PersistentState):
            found["chains"] = mode_shares(self.experiment, state.method.pool)
        self.last = time.process_time()
        return found


def flow_divergence(experiment: Experiment, flow: Flow, trained, test) -> float:
    """KL of the truth from the flow that proposed in training, nats: what the flow alone would have been worth."""
    params = trained.state.sampler.method.sampler.tuning.params
    log_q = jax.jit(jax.vmap(flow.log_prob, (None, 0)))(params, test)
    return float(np.mean(np.asarray(jax.vmap(experiment.target.logdensity)(test) - log_q, float)))


def cpu_seconds_per_step(setting: Setting, experiment: Experiment, data) -> float:
    """CPU seconds of an update, from a short trial after compilation."""
    algorithm = trainer(
        setting.model, setting.method, default_optimizer(1000, experiment.learning_rate), batch_size=BATCH_SIZE
    )
    state, _ = run(0, algorithm, data, 130, keep=keep_info, chunk_size=50, progress_bar=False)
    began = time.process_time()
    run(0, algorithm, state, 100, keep=keep_info, chunk_size=50, progress_bar=False)
    return (time.process_time() - began) / 100


def mean_of_last(values, fraction: float = 0.1) -> float:
    """Mean over the last `fraction` of a run."""
    return float(np.mean(values[-max(1, int(fraction * len(values))) :]))


def to_json(value: Any) -> Any:
    """The value in types that JSON knows; NaN and infinities become None."""
    if isinstance(value, dict):
        return {key: to_json(v) for key, v in value.items()}
    if hasattr(value, "tolist"):  # arrays and NumPy's numbers
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
