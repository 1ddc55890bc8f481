"""The one call a newcomer makes: warm up, freeze, draw. Only public pieces inside."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import blackjax
import jax
import numpy as np
import optax

from flowmcmc.adaptive import adaptive
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree, SamplingAlgorithm, num_chains
from flowmcmc.checks import check_density, check_flow, check_positions
from flowmcmc.datatree import to_datatree
from flowmcmc.flows import real_nvp
from flowmcmc.imh import imh
from flowmcmc.losses import Loss, forward_kl
from flowmcmc.rounds import Tuning, freeze
from flowmcmc.run import RunState, Trace, as_key, keep_all, keep_info, run

__all__ = ["SampleResult", "sample"]


@dataclass(frozen=True, eq=False)
class SampleResult:
    """What `sample` returns.

    Attributes
    ----------
    trace, warmup
        NumPy arrays, (draw, chain, ...); `trace` is None if warm-up was interrupted.
    flow, params
        The proposal density and its trained parameters.
    state
        Where the production run stands.
    algorithm, rng_key
        The frozen sampler, and the key it runs with.
    tuning
        Flow parameters, step size and scale that it uses.
    logdensity_fn
        The target.
    settings
        What was asked for and how long it took, in seconds; recorded in the DataTree.
    """

    trace: Trace | None
    warmup: Trace
    flow: Flow
    state: RunState
    algorithm: SamplingAlgorithm
    rng_key: Array
    tuning: Tuning
    logdensity_fn: LogDensity
    settings: dict

    @property
    def params(self) -> PyTree:
        """Trained flow parameters."""
        return self.tuning.params

    @cached_property
    def datatree(self):
        """The run as an arviz DataTree, see `to_datatree`."""
        return to_datatree(self.trace, warmup=self.warmup, attrs=self.settings)

    def more(self, num_samples: int, *, progress_bar: bool = True) -> "SampleResult":
        """Go on where the draws stopped, also after an interruption: the result with `num_samples` more draws.

        Bit for bit what one longer run would have given.

        Raises
        ------
        ValueError
            If warm-up was interrupted: there is no frozen sampler to go on with.
        """
        if self.trace is None:
            raise ValueError("warm-up was interrupted, so there is nothing to go on from: call sample again.")
        wanted = self.state.round + num_samples
        began = time.perf_counter()
        state, new = run(self.rng_key, self.algorithm, self.state, num_samples, progress_bar=progress_bar and "drawing")
        seconds = self.settings["sampling_seconds"] + time.perf_counter() - began
        known = {"num_samples": wanted, "partial": int(state.round < wanted), "sampling_seconds": seconds}
        trace = jax.tree.map(lambda old, fresh: np.concatenate([old, fresh]), self.trace, new)
        return replace(self, state=state, trace=trace, settings=self.settings | known)


def sample(
    rng_key: Array | int,
    logdensity_fn: LogDensity,
    positions: PyTree,
    *,
    num_samples: int = 1000,
    num_warmup: int = 400,
    local: LocalKernel = blackjax.mala,
    flow: Flow | None = None,
    flow_kernel: Callable = imh,
    loss: Loss = forward_kl,
    optimizer: optax.GradientTransformation | None = None,
    num_local_steps: int = 5,
    num_flow_steps: int = 5,
    num_train_steps: int = 20,
    batch_size: int = 256,
    history_size: int | None = None,
    target_acceptance_rate: float = 0.65,
    patience: int = 5,
    keep_warmup: bool = False,
    progress_bar: bool = True,
) -> SampleResult:
    """Sample an unnormalised density with local moves and flow proposals on many chains.

    Parameters
    ----------
    rng_key
        A JAX key or an int seed.
    logdensity_fn
        Log density of ONE position, up to a constant, in ``jax.numpy``; returns a scalar. NaN counts as zero density.
    positions
        Starting positions, chain axis first; any pytree of floating arrays. Start chains wherever you know or suspect a
        mode: a flow learns the modes that some chain has seen. Some 100 chains are a good number.
    num_samples
        Draws for each chain, one a round.
    num_warmup
        Rounds of adaptation before.
    local, flow, flow_kernel, loss, optimizer, num_local_steps, num_flow_steps, num_train_steps, batch_size, \
history_size, target_acceptance_rate, patience
        As in `adaptive`; `flow` defaults to ``real_nvp(position)``.
    keep_warmup
        Also keep the positions of warm-up.
    progress_bar
        Show one, with acceptance and held-out loss.

    Returns
    -------
    A `SampleResult`; ``flowmcmc.summary(result)`` says whether to trust it. Ctrl-C ends the phase it falls in and
    returns what there is, marked ``partial``.

    Raises
    ------
    TypeError, ValueError
        Before any long computation, for positions, a density or options that cannot work.

    Example
    -------
    >>> result = sample(0, lambda x: -0.5 * jnp.sum(x**2), jax.random.normal(jax.random.key(1), (100, 2)))
    >>> result.datatree.posterior
    """
    rng_key = as_key(rng_key)
    positions = check_positions(positions)
    for name, value in {"num_samples": num_samples, "num_warmup": num_warmup}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    check_density(logdensity_fn, positions)
    position = jax.tree.map(lambda leaf: leaf[0], positions)
    if flow is not None:
        check_flow(flow, position)
    flow = flow or real_nvp(position)
    warming = adaptive(
        logdensity_fn,
        local,
        flow,
        optimizer,
        num_local_steps=num_local_steps,
        num_flow_steps=num_flow_steps,
        num_train_steps=num_train_steps,
        batch_size=batch_size,
        history_size=history_size,
        flow_kernel=flow_kernel,
        loss=loss,
        target_acceptance_rate=target_acceptance_rate,
        patience=patience,
    )
    began = time.perf_counter()
    key_warmup, key_draw = jax.random.fold_in(rng_key, 0), jax.random.fold_in(rng_key, 1)
    state, warmup = run(
        key_warmup,
        warming,
        positions,
        num_warmup,
        keep=keep_all if keep_warmup else keep_info,
        progress_bar=progress_bar and "warm-up",
    )
    warmup_seconds = time.perf_counter() - began
    tuning = state.sampler.tuning
    frozen = freeze(
        logdensity_fn,
        local,
        flow,
        tuning,
        num_local_steps=num_local_steps,
        num_flow_steps=num_flow_steps,
        flow_kernel=flow_kernel,
    )
    trace = None
    if state.round == num_warmup:
        state, trace = run(key_draw, frozen, state.position, num_samples, progress_bar=progress_bar and "drawing")
    settings = {
        "num_chains": num_chains(positions),
        "num_warmup": num_warmup,
        "num_samples": num_samples,
        "num_local_steps": num_local_steps,
        "num_flow_steps": num_flow_steps,
        "partial": int(trace is None or state.round < num_samples),
        "warmup_seconds": warmup_seconds,
        "sampling_seconds": time.perf_counter() - began - warmup_seconds,
    }
    return SampleResult(trace, warmup, flow, state, frozen, key_draw, tuning, logdensity_fn, settings)
