"""The one call a newcomer makes: warm up, freeze, draw. Only public pieces inside."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from flowmcmc.adaptive import adaptive
from flowmcmc.arguments import check_counts, check_flow_type
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree
from flowmcmc.checkpoint import Checkpoint, describe_run, drawn, writable
from flowmcmc.checks import check_density, check_flow, check_positions
from flowmcmc.defaults import LOCAL, default_flows, default_local, search
from flowmcmc.devices import shard_chains
from flowmcmc.flows import trimmed
from flowmcmc.imh import imh
from flowmcmc.losses import Loss, forward_kl
from flowmcmc.result import SampleResult
from flowmcmc.rounds import Tuning, freeze, retuned
from flowmcmc.run import CHUNK_SIZE, RunState, as_key, keep_all, keep_info, run
from flowmcmc.tempering import is_density
from flowmcmc.warmup import kept_warmup, warm_up

__all__ = ["sample"]


def sample(
    rng_key: Array | int,
    logdensity_fn: LogDensity,
    positions: PyTree,
    *,
    num_samples: int = 1000,
    num_warmup: int = 400,
    local: LocalKernel | None = None,
    flow: Flow | None = None,
    num_chains: int = 100,
    num_particles: int = 2000,
    flow_kernel: Callable = imh,
    loss: Loss = forward_kl,
    optimizer: optax.GradientTransformation | None = None,
    num_local_steps: int = 1,
    num_flow_steps: int = 5,
    num_train_steps: int = 20,
    batch_size: int = 256,
    history_size: int | None = None,
    target_acceptance_rate: float = 0.65,
    patience: int = 5,
    keep_warmup: bool = False,
    checkpoint: Any = None,
    checkpoint_every: int = 1000,
    mesh: Mesh | None = None,
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
        Where to start. Either a broad density that covers the target, ``flowmcmc.normal(position, scale=10.0)`` or a
        NumPyro distribution: `tempered_smc` finds the modes from there. Or starting positions, chain axis first, any
        pytree of floating arrays: start chains wherever you know or suspect a mode, since a flow learns the modes that
        some chain has seen; some 100 chains are a good number.
    num_samples
        Draws for each chain, one a round.
    num_warmup
        Rounds of adaptation before, with a flow of yours. By default a third of them for each mixture; layers, if they
        are tried, get up to three times as many, a third at a time.
    flow
        Proposal density. None: a Gaussian mixture; mixtures of each coordinate by itself where hardly any of its
        proposals is accepted; coupling layers where neither is good enough (from the start if `loss` or `optimizer`
        say how to train them).
    num_chains, num_particles
        Chains, and particles of `tempered_smc`, where `positions` is a density.
    local, num_local_steps
        As in `adaptive`; by default one HMC trajectory with a `jittered` step size: of 8 steps, for a mixture with the
        covariance within its components as the metric; or of 4 in the latent space of coupling layers (`neutra`), which
        have made ridges and necks round.
    flow_kernel, loss, optimizer, num_flow_steps, num_train_steps, batch_size, history_size, target_acceptance_rate, \
patience
        As in `adaptive`.
    keep_warmup
        Also keep the positions of warm-up.
    checkpoint, checkpoint_every
        A folder to keep the end of warm-up in, and the draws, so many rounds at a time. Called again with the same
        arguments (or more `num_samples`), also after a ``kill -9``, the run goes on from there: the draws are those of
        an unbroken run, bit for bit. `local` and `flow` must be the same functions; that cannot be checked.
        All draws are in memory at the end: see `draw_to_disk` for more than fit there.
    mesh
        Of `chain_mesh`: chains are split over its devices, those of other processes too; each process calls this with
        the same arguments and gets the whole result.
    progress_bar
        Show one, with acceptance and held-out loss.

    Returns
    -------
    SampleResult
        ``flowmcmc.summary(result)`` says whether to trust it. Ctrl-C ends the phase it falls in and returns what there
        is, marked ``partial``.

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
    numbers = {
        "num_samples": num_samples,
        "num_warmup": num_warmup,
        "num_chains": num_chains,
        "checkpoint_every": checkpoint_every,
    }
    check_counts(numbers | {"num_particles": num_particles})
    if checkpoint is not None:
        writable(checkpoint)
    began = time.perf_counter()
    key_warmup, key_draw, key_start = (jax.random.fold_in(rng_key, index) for index in range(3))
    known = None
    if is_density(positions):
        positions, known = search(
            key_start, logdensity_fn, positions, num_chains, num_particles, local or LOCAL, progress_bar
        )
    positions = check_positions(positions)
    check_density(logdensity_fn, positions)
    position = jax.tree.map(lambda leaf: leaf[0], positions)
    if mesh is not None:
        if checkpoint is not None and jax.process_count() > 1:
            raise ValueError("checkpoint works in one process only, and there are several: leave it out.")
        positions = shard_chains(positions, mesh)
    if flow is not None:
        check_flow_type(flow)
        check_flow(flow, position)
    flows = {"given": flow} if flow else default_flows(position)
    if loss is not forward_kl or optimizer is not None:
        flows = {name: layered for name, layered in flows.items() if name not in ("mixture", "marginals")}
    local_for = partial(default_local, position=position) if local is None else lambda flow: local
    adapt = partial(
        adaptive,
        logdensity_fn,
        optimizer=optimizer,
        num_local_steps=num_local_steps,
        num_flow_steps=num_flow_steps,
        num_train_steps=num_train_steps,
        batch_size=batch_size,
        history_size=history_size,
        refit_every=100,
        flow_kernel=flow_kernel,
        loss=loss,
        target_acceptance_rate=target_acceptance_rate,
        patience=patience,
    )
    make_sampler = lambda flow: adapt(local=local_for(flow), flow=flow)

    frozen_rounds = {}  # each flow's are compiled once, for warm-up and draws

    def make_frozen(flow):
        nothing = Tuning((), jnp.zeros(()), ())  # until it is known
        steps = {"num_local_steps": num_local_steps, "num_flow_steps": num_flow_steps}
        frozen = freeze(logdensity_fn, local_for(flow), flow, nothing, **steps, flow_kernel=flow_kernel)
        return frozen_rounds.setdefault(id(flow), frozen)

    store = None
    if checkpoint is not None:
        asked = {"num_warmup": num_warmup, "num_local_steps": num_local_steps, "num_flow_steps": num_flow_steps}
        store = Checkpoint(checkpoint, describe_run(rng_key, logdensity_fn, positions, asked))
    flows = flows if num_flow_steps else dict(list(flows.items())[:1])
    keep = keep_all if keep_warmup else keep_info
    warm = kept_warmup(store, flows, make_sampler, positions, keep) if store else None
    if warm is None:
        warm = warm_up(
            key_warmup,
            make_sampler,
            make_frozen,
            flows,
            positions,
            known,
            num_warmup,
            keep=keep,
            progress_bar=progress_bar,
            target_acceptance_rate=target_acceptance_rate,
        )
        if store and not warm.is_partial:
            store.save(f"warm-{warm.flow}", (warm.position, warm.tuning, warm.num_slots, warm.trace))
    flow, tuning = flows[warm.flow], warm.tuning
    warmup_seconds = time.perf_counter() - began
    frozen = retuned(make_frozen(flow), tuning._replace(params=trimmed(tuning.params, warm.num_slots)))
    state, trace = RunState(0, frozen.init(warm.position)), None
    label = progress_bar and "drawing"
    if store and not warm.is_partial:
        state, trace = drawn(store, key_draw, frozen, state, num_samples, checkpoint_every, label)
    elif not warm.is_partial:
        state, trace = run(key_draw, frozen, state, num_samples, chunk_size=CHUNK_SIZE, progress_bar=label)
    settings = {
        "num_chains": jax.tree.leaves(positions)[0].shape[0],
        "num_warmup": len(warm.trace.info.step_size),
        "num_samples": num_samples,
        "num_local_steps": num_local_steps,
        "num_flow_steps": num_flow_steps,
        "flow": warm.flow,
        "partial": int(trace is None or state.round < num_samples),
        "warmup_seconds": warmup_seconds,
        "sampling_seconds": time.perf_counter() - began - warmup_seconds,
    }
    return SampleResult(trace, warm.trace, flow, state, frozen, key_draw, tuning, logdensity_fn, settings)
