"""The one call a newcomer makes: warm up, freeze, draw. Only public pieces inside."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from flowmcmc.adaptation.adaptive import adaptive
from flowmcmc.adaptation.rounds import Tuning, freeze, retuned
from flowmcmc.adaptation.training import is_layered
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree
from flowmcmc.base import num_chains as count_chains
from flowmcmc.choosing.candidates import default_flows, default_local
from flowmcmc.choosing.start import find_start
from flowmcmc.choosing.warmup import load_warmup, warm_up
from flowmcmc.flows import drop_unused_components
from flowmcmc.ground.arguments import as_key, check_counts, check_flow_type, hashable
from flowmcmc.ground.checks import check_density, check_flow, check_positions, check_start
from flowmcmc.ground.devices import check_mesh, shard_chains
from flowmcmc.kernels.imh import imh
from flowmcmc.kernels.tempering import is_density
from flowmcmc.losses import Loss, forward_kl
from flowmcmc.result import SampleResult
from flowmcmc.running.checkpoint import Checkpoint, drawn, make_writable, place_like
from flowmcmc.running.describe import describe_flow, describe_option, describe_run
from flowmcmc.running.run import CHUNK_SIZE, RunState, keep_all, keep_info, run

__all__ = ["sample"]

OR_DENSITY = ". Or pass a density to start from: flowmcmc.normal(position, scale=10.0), or any with sample and log_prob"


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
        are tried, get up to three times as many, a third at a time, and so do flows for funnels and ridges.
    flow
        Proposal density. None: a Gaussian mixture; mixtures of each coordinate by itself where hardly any of its
        proposals is accepted; one for funnels, or one for ridges, where it fits better; coupling layers where none of
        these is good enough (from the start if `loss` or `optimizer` say how to train them).
    num_chains, num_particles
        Chains, and particles of `tempered_smc`, where `positions` is a density.
    local, num_local_steps
        As in `adaptive`; by default one HMC trajectory with a `jittered` step size: of 8 steps, for a mixture with the
        covariance within its components as the metric; or of 4 in the latent space of coupling layers (`neutra`), which
        have made ridges and necks round, or of a flow for funnels or ridges.
    flow_kernel, loss, optimizer, num_flow_steps, num_train_steps, batch_size, history_size, target_acceptance_rate, \
patience
        As in `adaptive`.
    keep_warmup
        Also keep the positions of warm-up.
    checkpoint, checkpoint_every
        A folder to keep the end of warm-up in, and the draws, so many rounds at a time. Called again with the same
        arguments (or more `num_samples`), also after a ``kill -9``, the run goes on from there: the draws are those of
        an unbroken run, bit for bit. Functions must be the same too; of them only names and shapes are compared.
        All draws are in memory at the end: see `draw_to_disk` for more than fit there.
    mesh
        Of `chain_mesh`: chains are split over its devices, those of other processes too; each process calls this with
        the same arguments and gets the whole result.
    progress_bar
        Show one, with acceptance and held-out loss.

    Returns
    -------
    SampleResult
        ``flowmcmc.summary(result)`` says whether to trust it. Ctrl-C in warm-up or while drawing ends that and returns
        what there is, marked ``partial``; before, in the search from a density, there is nothing to return, and it
        raises KeyboardInterrupt.

    Raises
    ------
    TypeError, ValueError
        Before any long computation, for positions, a density or options that cannot work.

    Example
    -------
    >>> result = sample(0, lambda x: -0.5 * jnp.sum(x**2), jax.random.normal(jax.random.key(1), (100, 2)))
    >>> result.datatree.posterior
    """
    rng_key, logdensity_fn = as_key(rng_key), hashable(logdensity_fn)
    sizes = {"num_chains": num_chains, "num_particles": num_particles}
    check_counts(sizes | {"num_samples": num_samples, "num_warmup": num_warmup, "checkpoint_every": checkpoint_every})
    if checkpoint is not None:
        make_writable(checkpoint)
        if mesh is not None and jax.process_count() > 1:
            raise ValueError("checkpoint works in one process only, and there are several: leave it out.")
    began = time.perf_counter()
    key_warmup, key_draw, key_start = (jax.random.fold_in(rng_key, index) for index in range(3))
    start = positions if is_density(positions) else None
    if start is None:
        few = positions = check_positions(positions, OR_DENSITY)
        check_density(logdensity_fn, positions)
        position = jax.tree.map(lambda leaf: leaf[0], positions)
        sizes = {"num_chains": count_chains(positions)}
    else:
        position = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(start.sample, key_start))
    if mesh is not None:
        check_mesh(sizes["num_chains"], mesh)
    if flow is not None:
        check_flow_type(flow)
        check_flow(flow, position)
    flows = {"given": flow} if flow else default_flows(position)
    if flow is None and (loss is not forward_kl or optimizer is not None):
        flows = {name: layered for name, layered in flows.items() if is_layered(layered, position)}
    flows = flows if num_flow_steps else dict(list(flows.items())[:1])
    options = {
        "num_local_steps": num_local_steps,
        "num_flow_steps": num_flow_steps,
        "flow_kernel": flow_kernel,
        "num_train_steps": num_train_steps,
        "batch_size": batch_size,
        "history_size": history_size,
        "loss": loss,
        "optimizer": optimizer,
        "target_acceptance_rate": target_acceptance_rate,
        "patience": patience,
    }
    local_for = partial(default_local, position=position) if local is None else lambda flow: local
    adapt = partial(adaptive, logdensity_fn, refit_every=100, **options)
    make_sampler = lambda flow: adapt(local=local_for(flow), flow=flow)

    frozen_rounds = {}  # each flow's are compiled once, for warm-up and draws

    def make_frozen(flow):
        nothing = Tuning((), jnp.zeros(()), ())  # until it is known
        kernel = {name: options[name] for name in ("num_local_steps", "num_flow_steps", "flow_kernel")}
        frozen = freeze(logdensity_fn, local_for(flow), flow, nothing, **kernel)
        return frozen_rounds.setdefault(id(flow), frozen)

    make_sampler(next(iter(flows.values())))  # raises if an option is wrong, before anything takes long
    asked = {name: describe_option(value) for name, value in options.items()} | {
        "num_warmup": num_warmup,
        "keep_warmup": int(keep_warmup),
        "local": describe_option(local),
        "flow": describe_flow(flow, position),
    }
    store = None
    if checkpoint is not None:
        if start is not None:
            check_start(key_start, logdensity_fn, start)
            few = jax.vmap(start.sample)(jax.random.split(key_start, 4))
        store = Checkpoint(checkpoint, describe_run(rng_key, logdensity_fn, few, asked | sizes))
    known = None
    if start is not None:
        find = partial(find_start, key_start, logdensity_fn, start, local=local, progress_bar=progress_bar, **sizes)
        positions, known = store.kept("start", find, (position, position)) if store else find()
        positions = check_positions(positions)
        check_density(logdensity_fn, positions)
    positions = positions if mesh is None else shard_chains(positions, mesh)
    keep = keep_all if keep_warmup else keep_info
    warm = load_warmup(store, flows, make_sampler, positions, keep) if store else None
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
    frozen = retuned(make_frozen(flow), tuning._replace(params=drop_unused_components(tuning.params, warm.num_slots)))
    state, trace = RunState(0, frozen.init(place_like(positions, warm.position))), None
    label = progress_bar and "drawing"
    if store and not warm.is_partial:
        state, trace = drawn(store, key_draw, frozen, state, num_samples, checkpoint_every, label)
    elif not warm.is_partial:
        state, trace = run(key_draw, frozen, state, num_samples, chunk_size=CHUNK_SIZE, progress_bar=label)
    settings = asked | {
        "rng_key": " ".join(map(str, np.ravel(jax.random.key_data(rng_key)))),
        "num_chains": sizes["num_chains"],
        "num_warmup": len(warm.trace.info.step_size),
        "num_samples": max(num_samples, state.round),  # a folder may hold more
        "flow": warm.flow,
        "partial": int(trace is None or state.round < num_samples),
        "warmup_seconds": warmup_seconds,
        "sampling_seconds": time.perf_counter() - began - warmup_seconds,
    }
    return SampleResult(trace, warm.trace, flow, state, frozen, key_draw, tuning, logdensity_fn, settings)
