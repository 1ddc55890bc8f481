"""A trained model in use: normalised log density, draws, save and load.

`finish` samples the model with the core's flow-assisted sampler, many chains, half of them started at the tilt, so that
a mode that training never knew of has a chance to show; log Z is the bridge between their flow and their draws.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from ebm.fitting import Fit
from ebm.model import Model
from flowmcmc import Flow, SampleResult, Tuning, freeze, gaussian_mixture, run, sample, to_datatree
from flowmcmc.ground.arguments import check_has
from flowmcmc.ground.conversions import as_key
from flowmcmc.reading.evidence import LogZ, log_z_bridge

__all__ = ["EBM", "finish", "load"]


@dataclass(frozen=True, eq=False)
class EBM:
    """A trained energy-based model.

    Attributes
    ----------
    model, theta
        Energy with its tilt, and parameters.
    flow, tuning
        Proposal density and what the sampler learned: flow parameters, step size, scale.
    positions
        Draws of the model, one for each chain; `sample` goes on from them.
    log_z
        A `flowmcmc.LogZ`; printed, it is a number only if nothing speaks against it.
    local
        The kernel of its local steps.
    result
        The run behind it, for ``flowmcmc.summary``; None after `load`.
    """

    model: Model
    theta: Any
    flow: Flow
    tuning: Tuning
    positions: Any
    log_z: LogZ
    local: Callable
    result: SampleResult | None = field(default=None, repr=False)

    def logdensity(self, position) -> jax.Array:
        """log rho - E of ONE position, up to log Z."""
        return self.model.logdensity(self.theta, position)

    def log_prob(self, positions) -> jax.Array:
        """Normalised log densities of `positions`, leaves (n, ...), in nats; all share the error ``log_z.error``.

        Raises
        ------
        ValueError
            If something speaks against the estimate of log Z (``log_z.problems``): a shifted likelihood would be wrong
            without looking so. ``logdensity`` and ``log_z.bracket`` are there for who wants to go on.
        """
        if self.log_z.problems:
            raise ValueError(f"no normalised log density: {self.log_z}")
        values = jax.vmap(self.model.logdensity, (None, 0))(self.theta, jax.tree.map(jnp.asarray, positions))
        return values - self.log_z.log_z

    def sample(self, rng_key, num_samples: int = 1000, *, num_local_steps: int = 5, num_flow_steps: int = 5):
        """New draws from all chains as an arviz DataTree; ``flowmcmc.summary`` of it gives r-hat and a verdict.

        Parameters
        ----------
        rng_key
            A key or int seed.
        num_samples
            For each chain.
        num_local_steps, num_flow_steps
            Between two draws.
        """
        kernel = freeze(
            self.logdensity,
            self.local,
            self.flow,
            self.tuning,
            num_local_steps=num_local_steps,
            num_flow_steps=num_flow_steps,
        )
        _, trace = run(rng_key, kernel, self.positions, num_samples, progress_bar="drawing")
        return to_datatree(trace)

    def save(self, path) -> None:
        """Write parameters, flow, chains and log Z to the folder `path`; `load` also needs the model and the flow.

        Raises
        ------
        FileExistsError
            If `path` exists.
        """
        import orbax.checkpoint as ocp

        path = Path(path).absolute()
        if path.exists():
            raise FileExistsError(f"path {path} exists: remove it, or name another.")
        writing = path.with_name(f"{path.name}.writing")  # renamed when complete
        shutil.rmtree(writing, ignore_errors=True)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(writing / "state", self.arrays())
        num_chains = len(jax.tree.leaves(self.positions)[0])
        count = self.flow.num_components
        known = {
            "num_chains": num_chains,
            "num_components": None if count is None else count(self.tuning.params),
            "log_z": self.log_z._asdict(),
        }
        (writing / "model.json").write_text(json.dumps(known))
        writing.rename(path)

    def arrays(self) -> dict:
        """The arrays that `save` writes with orbax, without mixture components that are not in use."""
        tuning, drop = self.tuning, self.flow.drop_unused_components
        if drop is not None:
            tuning = tuning._replace(params=drop(tuning.params, 1))
        return {"theta": self.theta, "tuning": tuning, "positions": self.positions}


def finish(
    rng_key,
    fit: Fit,
    flow: Flow | None = None,
    *,
    local: Callable = blackjax.mala,
    num_chains: int = 128,
    num_warmup: int = 200,
    num_samples: int = 500,
    progress_bar: bool = True,
) -> EBM:
    """From a `Fit` to a model in use: sample it, and estimate log Z by the bridge of Meng and Wong (1996).

    Parameters
    ----------
    rng_key
        A key or int seed.
    fit
        What `fit` returned; its averaged parameters are used.
    flow
        Proposal; None: a Gaussian mixture fitted by EM.
    local
        As in ``flowmcmc.sample``.
    num_chains, num_warmup, num_samples
        Half of the chains start at data points, half at draws of the tilt.
    progress_bar
        Show one.

    Returns
    -------
    EBM
        The model with draws of it, ``positions``, leaves (num_chains, ...), and ``log_z``, a `LogZ` in nats; ``result``
        is the run behind it.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no `Fit`, or an option is out of range.
    KeyboardInterrupt
        If interrupted before the first draw.
    """
    check_has("fit", fit, ("model", "theta", "state"), "what ebm.fit returned")
    if num_chains < 2:
        raise ValueError(f"num_chains must be at least 2, got {num_chains}: half start at data, half at the tilt.")
    model, theta, data = fit.model, fit.theta, fit.state.sampler.data
    key_rows, key_tilt, key_sample, key_z = jax.random.split(as_key(rng_key), 4)
    half = num_chains // 2
    rows = jax.random.randint(key_rows, (num_chains - half,), 0, jax.tree.leaves(data)[0].shape[0])
    broad = jax.vmap(model.tilt.sample)(jax.random.split(key_tilt, half))
    starts = jax.tree.map(lambda leaf, other: jnp.concatenate([leaf[rows], other]), data, broad)
    flow = flow or gaussian_mixture(jax.tree.map(lambda leaf: leaf[0], data))

    def logdensity(position):
        return model.logdensity(theta, position)

    result = sample(
        key_sample,
        logdensity,
        starts,
        flow=flow,
        local=local,
        num_warmup=num_warmup,
        num_samples=num_samples,
        progress_bar=progress_bar,
    )
    if result.trace is None:
        raise KeyboardInterrupt("interrupted before any draw of the model was made")
    draws = jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1), result.trace.position)
    log_z = log_z_bridge(key_z, logdensity, flow, result.params, draws)
    return EBM(model, theta, flow, result.tuning, result.state.position, log_z, local, result)


def load(path, model: Model, flow: Flow | None = None, *, local: Callable = blackjax.mala) -> EBM:
    """Read a model that `EBM.save` wrote.

    Parameters
    ----------
    path
        The folder.
    model, flow, local
        Built as they were when it was saved; None is the default flow of `finish`.

    Returns
    -------
    EBM
        The saved model, ready to use; its ``result`` is None.

    Raises
    ------
    FileNotFoundError
        If there is no saved model at `path`.
    ValueError
        If model or flow have other shapes than the saved ones.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if not (path / "model.json").exists():
        raise FileNotFoundError(f"path {path} holds no saved model (model.json): EBM.save writes one.")
    known: Any = json.loads((path / "model.json").read_text())
    key = jax.random.key(0)
    position = jax.eval_shape(model.tilt.sample, key)
    flow = flow or gaussian_mixture(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), position))
    many = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((known["num_chains"], *leaf.shape), leaf.dtype), position)
    step_size: Any = jax.ShapeDtypeStruct((), jnp.result_type(float))
    if flow.drop_unused_components is None or known.get("num_components") is None:
        params = jax.eval_shape(flow.init, key, position)
    else:
        untrained = flow.init(key, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), position))
        params = flow.drop_unused_components(untrained, known["num_components"])
    tuning = Tuning(params, step_size, position)
    target = {"theta": jax.eval_shape(model.init, key), "tuning": tuning, "positions": many}
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(path / "state", target)
    except (ValueError, KeyError) as error:
        raise ValueError(f"path {path} was saved from another model or flow: {error}") from error
    saved: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known["log_z"].items()}
    log_z = LogZ(**saved)
    return EBM(model, found["theta"], flow, found["tuning"], found["positions"], log_z, local)
