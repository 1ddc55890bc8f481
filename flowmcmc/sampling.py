"""The one call a newcomer makes, in four stages: check (`choosing.request`), start, warm up, draw."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from flowmcmc.adaptation.batch import Loss, forward_kl
from flowmcmc.adaptation.frozen import with_tuning
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.choosing.calibration import MIN_ESS, NUM_SAMPLES
from flowmcmc.choosing.goal import ALL_DRAWN, ENOUGH_DRAWN, Goal, draw_towards
from flowmcmc.choosing.price import NOTHING_TRIED
from flowmcmc.choosing.request import Request, check_request, check_target
from flowmcmc.choosing.start import find_start
from flowmcmc.choosing.warmup import WarmUp, WarmUpPlan, warm_up
from flowmcmc.ground.arguments import check_limits
from flowmcmc.ground.budget import Budget
from flowmcmc.ground.checks import check_density, check_positions, check_start
from flowmcmc.ground.conversions import as_key
from flowmcmc.ground.devices import shard_chains
from flowmcmc.ground.sharding import mesh_context
from flowmcmc.kernels.imh import imh
from flowmcmc.result import SampleResult
from flowmcmc.running.checkpoint import Checkpoint, draw_in_blocks, load_or_compute, make_writable, place_like
from flowmcmc.running.describe import describe_flow, describe_option, describe_run
from flowmcmc.running.run import CHUNK_SIZE, RunState, Trace, keep_all, keep_info, run

__all__ = ["sample"]


def sample(
    rng_key: Array | int,
    logdensity_fn: LogDensity,
    positions: PyTree,
    *,
    num_samples: int | None = None,
    min_ess: float | None = None,
    max_seconds: float | None = None,
    max_evaluations: float | None = None,
    num_warmup: int = 400,
    local: LocalKernel | None = None,
    flow: Flow | None = None,
    num_chains: int = 100,
    num_particles: int = 2000,
    flow_kernel: Callable = imh,
    loss: Loss = forward_kl,
    optimizer: optax.GradientTransformation | None = None,
    num_local_steps: int | None = None,
    num_flow_steps: int | None = None,
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
        Draws for each chain, one a round. None: as many as `min_ess` takes, 1000 at most.
    min_ess
        Effective draws of the worst coordinate (arviz's bulk ESS) at which drawing ends, if r-hat is at most 1.01 too.
        None: 20,000, or no end before `num_samples` if that is given.
    max_seconds, max_evaluations
        Of wall time, and of the density (with its gradient or without). Warm-up ends when half is spent, drawing when
        all is; the result is marked ``partial``, ``settings["stopped"]`` says why.
    num_warmup
        With a flow of yours, rounds of adaptation before the draws. By default each flow that is tried gets 35 % of
        them; one that goes on improving repeats that up to nine times.
    flow
        Proposal density. None: a Gaussian mixture; mixtures of each coordinate by itself where states promise that
        these are better, or hardly any of its proposals is accepted; one for funnels, or one for ridges, where it fits
        better; coupling layers where none of these is good enough (from the start if `loss` or `optimizer` say how to
        train them).
    num_chains, num_particles
        Chains, and particles of `tempered_smc`, where `positions` is a density.
    local
        As in `adaptive`; by default one HMC trajectory with a `jittered` step size: of 8 steps, for a mixture with the
        covariance within its components as the metric; or of 4 in the latent space of coupling layers (`neutra`), which
        have made ridges and necks round, or of a flow for funnels or ridges.
    num_local_steps, num_flow_steps
        As in `adaptive`, in every round. None: 1 and 5 in warm-up; while drawing also, unless warm-up has shown that
        proposals are accepted and no chain waits for one: then a round has as few of them as make a draw, and local
        steps come in a random few of the rounds.
    flow_kernel, loss, optimizer, num_train_steps, batch_size, history_size, target_acceptance_rate, patience
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
    check_limits({"min_ess": min_ess, "max_seconds": max_seconds, "max_evaluations": max_evaluations})
    if max_seconds is not None and jax.process_count() > 1:
        raise ValueError("max_seconds works in one process only, as clocks differ: use max_evaluations.")
    began, budget = time.perf_counter(), Budget(max_seconds, max_evaluations)
    min_ess = MIN_ESS if min_ess is None and num_samples is None else min_ess
    kernel = {"num_local_steps": num_local_steps, "num_flow_steps": num_flow_steps, "flow_kernel": flow_kernel}
    learning = {
        "num_train_steps": num_train_steps,
        "batch_size": batch_size,
        "history_size": history_size,
        "loss": loss,
        "optimizer": optimizer,
        "target_acceptance_rate": target_acceptance_rate,
        "patience": patience,
    }
    counts = {
        "num_chains": num_chains,
        "num_particles": num_particles,
        "num_samples": NUM_SAMPLES if num_samples is None else num_samples,
        "num_warmup": num_warmup,
        "checkpoint_every": checkpoint_every,
    }
    target = check_target(as_key(rng_key), logdensity_fn, positions, counts, mesh)
    request = check_request(target, local, flow, kernel, learning, counts)
    keep, show = keep_all if keep_warmup else keep_info, bool(progress_bar)
    asked = {name: describe_option(value) for name, value in (request.kernel | learning).items()} | {
        "num_warmup": num_warmup,
        "keep_warmup": int(keep_warmup),
        "local": describe_option(local),
        "flow": describe_flow(flow, target.position),
    }
    store = open_store(checkpoint, request, asked, mesh)
    plan = make_plan(request, keep, show, budget)
    positions, particles, num_evaluations = start_chains(request, plan, store, local)
    with mesh_context(mesh):
        positions = positions if mesh is None else shard_chains(positions, mesh)
        warm = warm_chains(request, plan, store, positions, particles)
        warmup_seconds = time.perf_counter() - began
        frozen, state, trace, stopped = draw_samples(request, store, warm, positions, show, Goal(min_ess, budget))
    settings = asked | {
        "rng_key": " ".join(map(str, np.ravel(jax.random.key_data(target.rng_key)))),
        "num_chains": target.num_chains,
        "num_warmup": len(warm.trace.info.step_size),
        "num_samples": state.round if stopped == ENOUGH_DRAWN else max(request.counts["num_samples"], state.round),
        "local_share": float(warm.moves.local_share),
        "num_flow_steps": int(warm.moves.num_flow_steps) if request.kernel["num_flow_steps"] else 0,
        "search_evaluations": int(num_evaluations),
        "stopped": stopped,
        "flow": request.candidates[warm.candidate].name,
        "partial": int(stopped not in (ENOUGH_DRAWN, ALL_DRAWN)),
        "warmup_seconds": warmup_seconds,
        "sampling_seconds": time.perf_counter() - began - warmup_seconds,
    }
    return SampleResult(
        trace=trace,
        warmup=warm.trace,
        flow=request.candidates[warm.candidate].flow,
        state=state,
        algorithm=frozen,
        rng_key=request.key_draw,
        tuning=warm.tuning,
        logdensity_fn=logdensity_fn,
        settings=settings,
    )


def open_store(checkpoint: Any, request: Request, asked: dict, mesh: Mesh | None) -> Checkpoint | None:
    """The folder of this run, if it was asked for one."""
    target = request.target
    if checkpoint is None:
        return None
    make_writable(checkpoint)
    if mesh is not None and jax.process_count() > 1:
        raise ValueError("checkpoint works in one process only, and there are several: leave it out.")
    starts, sizes = target.positions, {"num_chains": target.num_chains}
    if target.start is not None:
        sizes["num_particles"] = request.counts["num_particles"]
        check_start(request.key_start, target.logdensity_fn, target.start)
        starts = jax.vmap(target.start.sample)(jax.random.split(request.key_start, 4))
    return Checkpoint(checkpoint, describe_run(target.rng_key, target.logdensity_fn, starts, asked | sizes))


def start_chains(
    request: Request, plan: WarmUpPlan, store: Checkpoint | None, local: LocalKernel | None
) -> tuple[PyTree, PyTree | None, int]:
    """Second stage: positions of the chains; and if a search has found them, more states of the target, and evaluations
    of the density in that search."""
    target = request.target
    if target.start is None:
        return target.positions, None, 0
    sizes = request.counts["num_chains"], request.counts["num_particles"]

    def search():
        found = find_start(request.key_start, plan, request.candidates, target.start, sizes, local)
        return found.positions, found.particles, found.num_evaluations

    like = lambda: (target.position, target.position, 0)
    positions, particles, num_evaluations = load_or_compute(store, "start", search, like)
    positions = check_positions(positions)
    check_density(target.logdensity_fn, positions)
    return positions, particles, int(num_evaluations)


def make_plan(request: Request, keep: Callable, show: bool, budget: Budget) -> WarmUpPlan:
    """What all flows that are tried share."""
    return WarmUpPlan(
        request.make_sampler,
        request.make_frozen,
        request.make_moves,
        request.counts["num_warmup"],
        request.learning["target_acceptance_rate"],
        keep,
        show,
        budget,
    )


def warm_chains(
    request: Request, plan: WarmUpPlan, store: Checkpoint | None, positions: PyTree, particles: PyTree | None
) -> WarmUp:
    """Third stage: adapt."""
    if (warm := load_warmup(store, request, positions, plan.keep)) is not None:
        return warm
    warm = warm_up(request.key_warmup, plan, request.candidates, positions, particles)
    if store and not warm.is_partial:
        store.save(
            f"warm-{request.candidates[warm.candidate].name}", (warm.position, warm.tuning, warm.moves, warm.trace)
        )
    return warm


def draw_samples(
    request: Request, store: Checkpoint | None, warm: WarmUp, positions: PyTree, show: bool, goal: Goal
) -> tuple[SamplingAlgorithm, RunState, Trace | None, str]:
    """Last stage: freeze, and draw unless warm-up was interrupted; the last value says why it ended."""
    frozen = with_tuning(request.make_frozen(request.candidates[warm.candidate]), warm.tuning, warm.moves)
    state = RunState(0, frozen.init(place_like(positions, warm.position)))
    if warm.is_partial:
        return frozen, state, None, "interrupted"
    label, every = show and "drawing", request.counts["checkpoint_every"]

    def draw(state, num_rounds):
        if store:
            return draw_in_blocks(store, request.key_draw, frozen, state, num_rounds, every, label)
        options = {"chunk_size": CHUNK_SIZE, "progress_bar": label}
        return run(request.key_draw, frozen, state, num_rounds - state.round, **options)

    return frozen, *draw_towards(goal, draw, state, request.counts["num_samples"])


def load_warmup(store: Checkpoint | None, request: Request, positions: PyTree, keep: Callable) -> WarmUp | None:
    """The warm-up that a run's folder holds, if it does."""
    if store is None:
        return None
    key = jax.random.key(0)
    for index, candidate in enumerate(request.candidates):
        sampler = request.make_sampler(candidate)

        def one(positions, sampler=sampler):
            state, info = sampler.step(key, sampler.init(positions, key))
            return state.position, state.tuning, request.make_moves(NOTHING_TRIED), keep(state, info)

        if (found := store.load(f"warm-{candidate.name}", lambda: jax.eval_shape(one, positions))) is not None:
            position, tuning, moves, trace = found
            return WarmUp(position, tuning, moves, trace, index, False)
    return None
