"""Warm-up of `sample`: start from particles if there are any, and take the cheapest flow that is good enough.

A Gaussian mixture costs a small fraction of coupling layers, to compile and to run. So each flow of a list gets its
rounds in turn, from the cheapest on, with the chains and the memory of the one before. A flow trains on as long as it
gains on held-out states and is better there than those before; the next is tried only while proposals are rejected,
some chain waits long for one, or chains are cut off (`edges`), and is taken only if it is enough better to pay
for its cost. What the states show to be of no use is left out (`flowmcmc.choosing.shapes`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.adaptation import training
from flowmcmc.adaptation.adaptive import AdaptiveState
from flowmcmc.adaptation.rounds import Tuning
from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.choosing.fitted import concatenate_traces, current_loss, grow_memory, last_rounds, rounds_with_fits
from flowmcmc.choosing.shapes import is_product, is_ridge, product_threshold, stored_states
from flowmcmc.flows import num_components_of
from flowmcmc.ground.compiling import compiler_options, strongly_typed
from flowmcmc.ground.devices import mesh_context, mesh_of
from flowmcmc.reading.diagnostics import longest_run
from flowmcmc.reading.edges import CUT_OFF
from flowmcmc.running.checkpoint import Checkpoint
from flowmcmc.running.run import RunState, Trace, run

__all__ = ["WarmUp", "load_warmup", "warm_up"]

ENOUGH = 0.4  # mean acceptance of flow proposals at which no dearer flow is tried
MAX_WAIT = 15  # rounds in a row without an accepted proposal, for the worst chain
CHEAP_WAIT = 30  # the same for a cheap flow: layers take longer to train than such waits cost
OFTEN = 0.1  # share of rounds with an accepted proposal that is enough for a cheap flow, if all chains have their part
CHANCE = 4.0  # times the longest wait to be expected if proposals are as hard to come by everywhere
HOPELESS = 0.2  # acceptance below which anything is tried that may be better, and no wait keeps a warped flow training
BETTER = 0.03  # nats of held-out loss that the first fit of a warped flow must gain
MIN_GAIN = 2.0  # in effective draws for each proposal, to take a dearer flow
BLOCK = 0.35  # of the rounds asked for; a mixture gets one block
WARPED = ("funnel", "bent")  # get further with each block of rounds, as their local moves follow the ridge or the neck
MEMORY = 4  # times as many states are remembered for them
MAX_BLOCKS = 9  # for layers and warped flows while they learn
STARVED = 0.05  # acceptance of one normal component, which more states would raise
GAINS = 0.01  # in acceptance from one block to the next: a warped flow is still learning
NO_WAIT = 5  # rounds; longer ones show an end of a neck or ridge that it does not follow yet
STILL_LEARNING = 0.01  # nats of held-out loss in half a block


class WarmUp(NamedTuple):
    """Positions, what to freeze, for how many mixture components the compiled rounds have room, what was kept of each
    round, name of the flow, and whether it was interrupted."""

    position: PyTree
    tuning: Tuning
    num_slots: int
    trace: Trace
    flow: str
    is_partial: bool


def warm_up(
    rng_key: Array,
    make_sampler: Callable,
    make_frozen: Callable,
    flows: dict[str, Flow],
    positions: PyTree,
    known: PyTree | None,
    num_rounds: int,
    *,
    keep: Callable,
    progress_bar: bool,
    target_acceptance_rate: float = 0.65,
) -> WarmUp:
    """Adapt, with one flow after the other.

    Parameters
    ----------
    rng_key
        One key.
    make_sampler
        ``flow -> SamplingAlgorithm``, an `adaptive` sampler.
    make_frozen
        ``flow -> SamplingAlgorithm``, its `freeze`; the rounds of a flow without layers.
    flows
        By name, from the cheapest to the dearest.
    positions
        Starting positions, chain axis first.
    known
        More states of the target to remember, or None.
    num_rounds
        For a flow given; of several, a mixture gets a third of them, layers, warped ones and a single normal component
        a third at a time up to three times as many.
    keep, progress_bar
        As in `run`.
    target_acceptance_rate
        As in `adaptive`.
    """
    tried: list[tuple[float, Tuning, int, str]] = []
    traces, is_partial = [], False
    position = jax.tree.map(lambda leaf: leaf[0], positions)
    lowest_loss, is_choice = float("inf"), len(flows) > 1
    takes_product = is_bent = has_converged = False
    start: Any = positions  # or the state of the flow before
    before: Flow | None = None
    for index, (name, flow) in enumerate(flows.items()):
        if tried and ((name == "marginals" and not takes_product) or (name == "funnel" and is_bent)):
            continue
        sampler = make_sampler(flow)
        key_begin, key = jax.random.split(jax.random.fold_in(rng_key, index))
        is_layered = training.is_layered(flow, position)
        gets_further = name in WARPED and bool(tried)
        with mesh_context(mesh_of(positions)):
            begin = jax.jit(partial(init_with_particles, sampler), compiler_options=compiler_options(is_brief=True))
            state = begin(key_begin, start, known if index == 0 else None)
            state = grow_memory(state, MEMORY) if gets_further and tried[-1][-1] not in WARPED else state
        label = progress_bar and (f"warm-up, flow {index + 1}/{len(flows)}" if is_choice else "warm-up")
        size = max(1, int(BLOCK * num_rounds)) if is_choice else num_rounds
        show = {"keep": keep, "progress_bar": label or None}
        num_slots, at_end, is_cheap, must_beat = 1, 1.0, is_choice and not is_layered, None
        if before and gets_further:
            must_beat = current_loss(before, start) - BETTER
        elif is_choice and not index and known is not None:
            must_beat = product_threshold(stored_states(state.training.seen))
        if is_layered:
            num_blocks = MAX_BLOCKS if is_choice else 1
            state, trace, num_asked = trained(key, sampler, state, size, num_blocks, lowest_loss, **show)
        else:
            state, trace, num_slots, num_asked, at_end = rounds_with_fits(
                key,
                make_frozen(flow),
                flow,
                state,
                size,
                is_known=index > 0 or known is not None,
                target_acceptance_rate=target_acceptance_rate,
                must_beat=must_beat,
                num_blocks=MAX_BLOCKS if is_choice else 1,
                should_continue=continue_while_gaining(gets_further),
                **show,
            )
            if num_asked == 0:
                if not index:
                    start, takes_product = state, True
                continue
        traces.append(trace)
        is_partial = len(trace.info.step_size) < num_asked
        rate, longest, is_even, _, loss = block_stats(last_rounds(trace, size))
        will_do = is_enough(rate, longest) if not is_cheap else is_enough(rate, longest, CHEAP_WAIT) or is_even
        has_converged |= will_do and at_end >= CUT_OFF
        efficiency = rate / (2 - rate) * min(1.0, MAX_WAIT / max(1, longest)) * (1.0 if at_end >= CUT_OFF else 0.1)
        efficiency *= MIN_GAIN if name == "marginals" else 1.0  # no dearer than a mixture
        tried.append((efficiency, state.tuning, num_slots, name))
        start, before, lowest_loss = state, flow, min(lowest_loss, loss)
        if is_choice and not index:
            rows = stored_states(state.training.seen)
            takes_product, is_bent = is_product(rows, loss, is_hopeless=rate < HOPELESS), is_ridge(rows)
            if takes_product and not is_partial:
                continue
        # where one of these leaves some chain waiting, layers would too: the draws' own verdict says so
        if is_partial or has_converged or (rate >= ENOUGH and (is_layered or gets_further)):
            break
    best = len(tried) - 1
    for earlier in reversed(range(len(tried) - 1)):
        if tried[best][0] < MIN_GAIN * tried[earlier][0]:
            best = earlier
    _, tuning, num_slots, name = tried[best]
    # the chains go on from where they are last, whichever flow they take
    return WarmUp(start.position, tuning, num_slots, concatenate_traces(traces), name, is_partial)


def trained(rng_key, sampler, state, size, num_blocks, lowest_loss, *, keep, progress_bar):
    """Rounds of a flow with layers, a block at a time while it learns and is ahead of those before it: the state, the
    trace, and how many rounds there should be."""
    state, traces = RunState(0, state), []
    for _ in range(num_blocks):
        state, trace = run(rng_key, sampler, state, size, keep=keep, progress_bar=progress_bar)
        traces.append(trace)
        is_partial = len(trace.info.step_size) < size
        rate, longest, _, gain, loss = block_stats(trace)
        if is_partial or is_enough(rate, longest) or gain < STILL_LEARNING or loss > lowest_loss:
            break
    return state.sampler, concatenate_traces(traces), size * len(traces)


def load_warmup(
    store: Checkpoint, flows: dict[str, Flow], make_sampler: Callable, positions: PyTree, keep: Callable
) -> WarmUp | None:
    """The warm-up that a run's folder holds, if it does."""
    key = jax.random.key(0)
    for name, flow in flows.items():
        sampler = make_sampler(flow)

        def one(positions, sampler=sampler):
            state, info = sampler.step(key, sampler.init(positions, key))
            return state.position, state.tuning, 0, keep(state, info)

        if (found := store.load(f"warm-{name}", lambda: jax.eval_shape(one, positions))) is not None:
            position, tuning, num_slots, trace = found
            return WarmUp(position, tuning, int(num_slots), trace, name, False)
    return None


def init_with_particles(sampler, rng_key: Array, start: PyTree, known: PyTree = None) -> AdaptiveState:
    """First state of an `adaptive` sampler, from positions or another's state, that also remembers `known`."""
    key_init, key_remember = jax.random.split(rng_key)
    state = sampler.init(start, key_init)
    if known is not None:
        state = state._replace(training=training.remember(key_remember, state.training, known, jnp.array(0)))
    return strongly_typed(state)


def continue_while_gaining(gets_further: bool) -> Callable[[Trace, PyTree], bool]:
    """Whether more of the proposals were accepted than in the block before, or many but some chain had to wait. What a
    flow that gets no further lacks is another shape, unless one component is best: then it is states."""
    rates = [0.0]

    def should_continue(block, params):
        rate, longest, *_ = block_stats(block)
        rates.append(rate)
        if not gets_further and (num_components_of(params) != 1 or rate < STARVED or is_enough(rate, longest)):
            return False
        return rate > rates[-2] + GAINS or (gets_further and rate >= HOPELESS and longest > NO_WAIT)

    return should_continue


def is_enough(rate: float, longest: int, allowed: int = MAX_WAIT) -> bool:
    """Whether proposals are accepted often enough and no chain waits longer than `allowed`."""
    return rate >= ENOUGH and longest <= allowed


def block_stats(trace: Trace) -> tuple[float, int, bool, float, float]:
    """Over the second half of the rounds: acceptance of flow proposals; longest wait of any chain in rounds; whether
    each chain has one accepted often; the gain in held-out loss, and what it is now."""
    rounds, loss = trace.info.round, trace.info.training.heldout_loss
    half = len(loss) // 2
    is_rejected = rounds.num_flow_accepted == 0
    if not len(is_rejected):
        return 0.0, 0, False, 0.0, float("inf")
    rate = float(np.nan_to_num(np.mean(rounds.flow_acceptance_rate[half:])))
    longest = max(map(longest_run, is_rejected[half:].T))
    share = 1 - is_rejected[half:].mean()
    # a wait of w rounds has probability (1 - share)^w, and there are as many of them as rounds times chains
    allowed = CHANCE * np.log(is_rejected[half:].size) / -np.log1p(-np.clip(share, 1e-9, 0.99))
    # where such waits are longer than that half, all rounds tell more
    among = is_rejected if allowed > len(loss) - half else is_rejected[half:]
    is_even = share >= OFTEN and max(map(longest_run, among.T)) < min(len(among), allowed)
    return rate, longest, bool(is_even), float(loss[half] - loss[-1]), float(loss[-1])
