"""Training in one call: chunks of updates, a look at the model between them, and a record of what happened."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from ebm.method import Method
from ebm.model import Model, check_model
from ebm.negatives.chains import PersistentState
from ebm.train import TrainInfo, default_optimizer, trainer
from flowmcmc.base import SamplingAlgorithm
from flowmcmc.base import num_chains as length
from flowmcmc.ground.arguments import check_callables, check_counts, check_has, check_optimizer, describe_value
from flowmcmc.ground.checks import check_positions
from flowmcmc.ground.conversions import as_key
from flowmcmc.ground.leaves import describe_shapes, leaf_names
from flowmcmc.running.run import RunState, keep_info, run

__all__ = ["Fit", "fit"]

NUM_WATCHED = 128  # persistent chains whose positions are recorded


@dataclass(frozen=True, eq=False)
class Fit:
    """What `fit` returns.

    Attributes
    ----------
    model, method
        What was trained, and how.
    state
        Where training stands; ``state.sampler`` is the `TrainState`.
    info
        `TrainInfo` of every update, NumPy arrays.
    records
        What `monitor` returned, with the number of updates before each look (``"step"``).
    chains
        Positions of the first 128 persistent chains at every look, (look, chain, ...); None without such chains.
    partial
        Whether training was interrupted.
    algorithm, rng_key, monitor, look_every
        What `more` goes on with.
    """

    model: Model
    method: Method
    state: RunState
    info: TrainInfo
    records: list[dict]
    chains: Any
    partial: bool
    algorithm: SamplingAlgorithm
    rng_key: jax.Array
    monitor: Callable | None
    look_every: int

    @property
    def theta(self):
        """The averaged parameters: what to use."""
        return self.state.sampler.average

    @property
    def pool(self):
        """Positions of all persistent chains, or None."""
        method_state = self.state.sampler.method
        return method_state.pool if isinstance(method_state, PersistentState) else None

    def more(self, num_steps: int, *, progress_bar: bool = True) -> "Fit":
        """Go on training: bit for bit what one longer run would have given, the optimiser's schedule as it was."""
        return train_more(self, num_steps, progress_bar)


def fit(
    rng_key: jax.Array | int,
    model: Model,
    data: Any,
    method: Method,
    *,
    num_steps: int = 4000,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 256,
    average_decay: float = 0.998,
    monitor: Callable | None = None,
    look_every: int | None = None,
    progress_bar: bool = True,
) -> Fit:
    """Train an energy-based model.

    Parameters
    ----------
    rng_key
        A key or an int seed.
    model
        Energy and tilt.
    data
        An array or pytree of floating arrays, the data axis first.
    method
        ``maximum_likelihood(model, persistent(...))``, ``nce(model, noise)``...
    num_steps
        Updates.
    optimizer
        Any optax optimiser; default ``default_optimizer(num_steps)``.
    batch_size, average_decay
        As in `trainer`.
    monitor
        ``(TrainState) -> dict``, called between chunks; its values are kept in ``records`` and shown.
    look_every
        Updates in a chunk; None means fifty chunks.
    progress_bar
        Show one.

    Returns
    -------
    Fit
        Ctrl-C returns what there is, marked ``partial``; ``fit.more`` goes on from there.

    Raises
    ------
    TypeError, ValueError
        For data that is not finite, not floating, constant in a coordinate or fewer than a batch, an energy that is not
        a finite scalar there, or an option out of range.
    """
    check_counts({"num_steps": num_steps, "batch_size": batch_size})
    check_model(model)
    check_has("method", method, Method._fields, "a Method, such as ebm.nce(model, noise)")
    if optimizer is not None:
        check_optimizer(optimizer)
    if look_every is not None:
        check_counts({"look_every": look_every})
    if monitor is not None:
        check_callables({"monitor": monitor}, "lambda state: {'name': 1.0}")
    rng_key = as_key(rng_key)
    data = check_data(model, data)
    if (size := length(data)) < batch_size:
        raise ValueError(f"data holds {size} points, fewer than batch_size = {batch_size}: pass a smaller batch_size.")
    algorithm = trainer(
        model,
        method,
        optimizer or default_optimizer(num_steps),
        batch_size=batch_size,
        average_decay=average_decay,
    )
    every = look_every or max(1, num_steps // 50)
    begun = Fit(model, method, data, (), [], None, True, algorithm, rng_key, monitor, every)  # type: ignore
    return train_more(begun, num_steps, progress_bar)


def train_more(fit: Fit, num_steps: int, progress_bar: bool) -> Fit:
    """Train for `num_steps` more updates, chunk by chunk, with a look at the model after each chunk."""
    state, first = fit.state, fit.state.round if isinstance(fit.state, RunState) else 0
    infos, records = [fit.info] if isinstance(fit.info, TrainInfo) else [], list(fit.records)
    chains = [] if fit.chains is None else list(fit.chains)
    done, is_partial = 0, False
    with tqdm(total=num_steps, desc="training", disable=not progress_bar, leave=False) as bar:
        while done < num_steps and not is_partial:
            # chunks end at multiples of `look_every`, also after an interruption
            size = min(fit.look_every - (first + done) % fit.look_every, num_steps - done)
            state, trace = run(
                fit.rng_key,
                fit.algorithm,
                state,
                size,
                keep=keep_info,
                chunk_size=fit.look_every,
                progress_bar=False,
            )
            infos.append(trace.info)
            is_partial = state.round - first - done < size
            newly, done = state.round - first - done, state.round - first
            postfix = {"loss": f"{np.mean(trace.info.loss):.3g}"} if newly else {}
            looked = monitor_record(fit.monitor, state) if newly else {}
            is_partial |= looked is None
            if looked:
                records.append(looked)
                postfix |= {name: f"{v:.3g}" for name, v in looked.items() if is_number(v) and name != "step"}
            bar.set_postfix(postfix, refresh=False)
            bar.update(newly)
            if newly and isinstance(state.sampler.method, PersistentState):
                chains.append(jax.tree.map(lambda leaf: np.asarray(leaf[:NUM_WATCHED]), state.sampler.method.pool))
    info = jax.tree.map(lambda *leaves: np.concatenate(leaves), *infos)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *chains) if chains else None
    return replace(fit, state=state, info=info, records=records, chains=stacked, partial=is_partial)


def monitor_record(monitor: Callable | None, state: RunState) -> dict | None:
    """The record that `monitor` makes of this state; None if it was interrupted, so that no training is lost."""
    if monitor is None:
        return {}
    try:
        looked = monitor(state.sampler)
        if not isinstance(looked, dict):
            raise TypeError(f"monitor must return a dict of what to keep, got {describe_value(looked)}.")
        return {"step": state.round, **looked}
    except KeyboardInterrupt:
        warnings.warn(
            f"interrupted in monitor after {state.round} updates; returning what was done so far.", stacklevel=3
        )
        return None


def is_number(value) -> bool:
    """Whether `value` is a single number, which the progress bar can show."""
    return np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number)


def check_data(model: Model, data):
    """`data` as floating arrays, after one look at the energy.

    Raises
    ------
    TypeError, ValueError
        If the data is not finite or floating, or the model cannot take it.
    """
    try:
        data = check_positions(data)
    except (TypeError, ValueError) as error:
        message = str(error).replace("starting positions", "data").replace("start every chain at", "put every point at")
        raise type(error)(message.replace("positions", "data").replace("chain", "point")) from None
    for name, leaf in zip(leaf_names(data), jax.tree.leaves(data)):
        is_constant = np.ptp(np.asarray(leaf), axis=0) == 0
        if is_constant.any():
            where = [int(i) for i in np.argwhere(is_constant)[0]]
            raise ValueError(
                f"data[{name}] is the same number in all {len(leaf)} points at {where or 'its only coordinate'}: no "
                "density can be learned there; leave the coordinate out, or add noise to it."
            )
    theta = model.init(jax.random.key(0))
    try:
        values = jax.vmap(model.logdensity, (None, 0))(theta, jax.tree.map(lambda leaf: leaf[:1000], data))
    except Exception as error:
        raise TypeError(
            f"model cannot take a data point with {describe_shapes(jax.tree.map(lambda leaf: leaf[0], data))} "
            f"({type(error).__name__}: {str(error).splitlines()[0]}): build energy and tilt for data[0]."
        ) from error
    if values.ndim != 1:
        raise ValueError(f"model: energy and tilt must return a scalar for one position, got shape {values.shape[1:]}.")
    if not bool(jax.numpy.all(jax.numpy.isfinite(values))):
        bad = int(jax.numpy.sum(~jax.numpy.isfinite(values)))
        raise ValueError(
            f"model: the log density is not finite at {bad} of the first {len(values)} data points before training: "
            "widen the tilt, or look for NaN in the energy."
        )
    return data
