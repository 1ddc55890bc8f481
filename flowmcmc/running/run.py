"""Driving a sampler on the host: compiled chunks of rounds, a progress bar, interruption and exact resumption.

Round t uses the key ``fold_in(rng_key, t)``, so that a run in pieces is the unbroken run, bit for bit. One function of
a dynamic number of rounds is compiled and serves every chunk; chunks grow to about half a second each. What a chunk has
kept is fetched, and no more than that, while the next one runs.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flowmcmc.base import Array, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import check_counts, check_sampler
from flowmcmc.ground.compiling import compile_for
from flowmcmc.ground.conversions import as_arrays, as_key, strongly_typed
from flowmcmc.ground.devices import mesh_of
from flowmcmc.ground.leaves import concatenate_trees
from flowmcmc.ground.sharding import mesh_context, replicate

__all__ = ["RunState", "Trace", "compile_chunk", "fetch_rows", "keep_all", "keep_info", "no_rounds", "run"]

CHUNK_SECONDS = 0.5
CHUNK_SIZE = 100


class RunState(NamedTuple):
    """Rounds done and the sampler's own state: everything needed to go on."""

    round: int
    sampler: Any

    @property
    def position(self) -> PyTree:
        """Positions, chain axis first."""
        return self.sampler.position


class Trace(NamedTuple):
    """What each round left, NumPy arrays with the round axis first."""

    position: PyTree
    info: Any


def keep_all(state, info) -> Trace:
    """Positions and infos of each round."""
    return Trace(state.position, info)


def keep_info(state, info) -> Trace:
    """Infos only."""
    return Trace(None, info)


def run(
    rng_key: Array | int,
    algorithm: SamplingAlgorithm,
    positions: PyTree | RunState,
    num_rounds: int,
    *,
    keep: Callable[[Any, Any], PyTree] = keep_all,
    chunk_size: int | None = None,
    progress_bar: bool | str = True,
) -> tuple[RunState, Any]:
    """Take `num_rounds` steps of `algorithm` on all chains.

    Parameters
    ----------
    rng_key
        A key, typed or not, or an int seed. Give the same one to go on with a run.
    algorithm
        A sampler of an ensemble: `adaptive`, `freeze`, or ``vmap_chains`` of any BlackJAX algorithm.
    positions
        Starting positions, chain axis first (on several devices after `shard_chains`); or the `RunState` that an
        earlier call returned, to go on from there.
    num_rounds
        How many more rounds.
    keep
        ``(state, info) -> pytree``, what to keep of each round, on the host; a module-level function (it is compiled).
    chunk_size
        Most rounds between two looks at the host; bounds the memory on the device.
    progress_bar
        False for none; a string is its label.

    Returns
    -------
    tuple
        The `RunState` and the kept trees stacked over rounds (`Trace` by default). After Ctrl-C both hold the rounds
        done so far, ``state.round`` says how many, and a warning is given.

    Raises
    ------
    ValueError
        If `num_rounds` or `chunk_size` is not positive.
    """
    chunk_size = min(CHUNK_SIZE, num_rounds) if chunk_size is None else chunk_size
    check_counts({"num_rounds": num_rounds, "chunk_size": chunk_size})
    check_sampler(algorithm)
    rng_key = as_key(rng_key)
    # a sampler of something else than chains (training, say) has no positions
    mesh = mesh_of(getattr(positions.sampler, "position", None) if isinstance(positions, RunState) else positions)
    with mesh_context(mesh):
        return run_chunks(rng_key, algorithm, positions, num_rounds, keep, chunk_size, progress_bar)


def run_chunks(rng_key, algorithm, positions, num_rounds, keep, chunk_size, progress_bar) -> tuple[RunState, Any]:
    """`run` on the mesh in use. What a chunk has kept is fetched while the next one runs."""
    begun = positions if isinstance(positions, RunState) else init_state(rng_key, algorithm, positions)
    advance = compile_chunk(algorithm.step, keep, chunk_size)
    launched, last, size = begun, begun.round + num_rounds, 1
    running: deque[Chunk] = deque()
    fetched: list[tuple[Chunk, Any]] = []
    label = progress_bar if isinstance(progress_bar, str) else None
    with tqdm(total=num_rounds, desc=label, disable=not progress_bar, leave=False) as bar:
        try:
            before = time.perf_counter()
            while launched.round < last or running:
                # a second chunk behind the one that runs, once it is known how long a round takes
                while launched.round < last and len(running) < (2 if fetched else 1):
                    chunk = min(size, chunk_size, last - launched.round)
                    sampler, kept = advance(rng_key, launched.sampler, launched.round, chunk)
                    launched = RunState(launched.round + chunk, sampler)
                    running.append(Chunk(launched, kept, chunk))
                fetch_next(running, fetched)
                seconds, before = time.perf_counter() - before, time.perf_counter()
                chunk, piece = fetched[-1]
                bar.update(chunk.size)
                bar.set_postfix(progress_postfix(piece))
                # the first chunk is slow because it compiles; several processes must agree, whatever their clocks say
                is_short = seconds < CHUNK_SECONDS or len(fetched) == 1 or jax.process_count() > 1
                size = 2 * chunk.size if is_short else max(1, chunk.size // 2)
        except KeyboardInterrupt:
            while running:
                fetch_next(running, fetched)
            done = sum(chunk.size for chunk, _ in fetched)
            warnings.warn(
                f"interrupted after {done} of {num_rounds} rounds; returning what was done so far.", stacklevel=3
            )
    if not fetched:
        return begun, no_rounds(algorithm.step, keep, begun.sampler)
    return fetched[-1][0].state, concatenate_trees([piece for _, piece in fetched])


def no_rounds(step: Callable, keep: Callable, state: Any) -> Any:
    """What is kept of no round at all, for a run that is interrupted before its first."""
    shapes = jax.eval_shape(lambda state: keep(*step(jax.random.key(0), state)), state)
    return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape), leaf.dtype), shapes)


class Chunk(NamedTuple):
    """Rounds handed to the device: the `state` after them, room for what they `kept`, and how many there are."""

    state: RunState
    kept: PyTree
    size: int


def fetch_next(running: deque, fetched: list) -> None:
    """Bring home what the oldest chunk has kept; a Ctrl-C in between neither loses nor repeats it."""
    chunk = running[0]
    if not (fetched and fetched[-1][0] is chunk):
        fetched.append((chunk, fetch_rows(chunk.kept, chunk.size)))
    running.popleft()


def fetch_rows(kept: PyTree, size: int) -> PyTree:
    """The first `size` rows of each leaf, on the host. On a GPU they are cut out in stretches of 1, 2, 4, ... rows, so
    that few programs are compiled; on a CPU they are copied, as a view would keep the whole buffer."""
    room = max((len(leaf) for leaf in jax.tree.leaves(kept)), default=size)
    if jax.default_backend() == "cpu" or size == room:
        rows = jax.tree.map(np.asarray, kept)
        return jax.tree.map(lambda leaf: leaf if len(leaf) == size else leaf[:size].copy(), rows)
    pieces, first = [], 0
    for power in reversed(range(size.bit_length())):
        if size >> power & 1:
            pieces.append(cut_rows(kept, first, num_rows=1 << power))
            first += 1 << power
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *pieces)


@partial(jax.jit, static_argnames="num_rows")
def cut_rows(kept: PyTree, first: Array, *, num_rows: int) -> PyTree:
    """`num_rows` rows of each leaf from `first` on."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, num_rows), kept)


def init_state(rng_key: Array, algorithm: SamplingAlgorithm, positions: PyTree) -> RunState:
    """State before the first round, compiled too."""
    # any number apart from the rounds' own
    key = jax.random.fold_in(rng_key, 2**31 - 1)
    return RunState(0, compile_for(first_state, algorithm.init)(as_arrays(positions), key))


def first_state(init: Callable, positions: PyTree, rng_key: Array) -> Any:
    """What `init` returns, of types that a step does not change."""
    return strongly_typed(init(positions, rng_key))


def compile_chunk(step: Callable, keep: Callable, chunk_size: int) -> Callable:
    """``(rng_key, state, first_round, num_rounds) -> (state, kept)`` with room for `chunk_size` rounds."""
    return compile_for(take_rounds, step, static=(keep, chunk_size))


def take_rounds(
    keep: Callable, chunk_size: int, step: Callable, rng_key: Array, state, first: Array, num_rounds: Array
):
    """So many rounds from the one numbered `first` on, and what is kept of each."""

    def one(rng_key, state, round):
        state, info = step(jax.random.fold_in(rng_key, round), state)
        return state, keep(state, info)

    def body(index, carry):
        state, kept = carry
        state, new = one(rng_key, state, first + index)
        return state, jax.tree.map(lambda rows, row: rows.at[index].set(row), kept, new)

    shapes = jax.eval_shape(one, rng_key, state, first)[1]
    room = jax.tree.map(lambda leaf: jnp.zeros((chunk_size, *leaf.shape), leaf.dtype), shapes)
    state, kept = jax.lax.fori_loop(0, num_rounds, body, (state, room))
    return state, replicate(kept)


def progress_postfix(piece) -> dict[str, str]:
    """Acceptance and loss of a chunk for the progress bar, where the infos have them."""
    info = getattr(piece, "info", None)
    rounds = getattr(info, "round", info)
    shown = {}
    for label, field in {"local": "local_acceptance_rate", "flow": "flow_acceptance_rate"}.items():
        if hasattr(rounds, field):
            values = getattr(rounds, field)
            shown[label] = "-" if np.isnan(values).all() else f"{np.nanmean(values):.2f}"
    if (training := getattr(info, "training", None)) is not None:
        shown["loss"] = f"{training.heldout_loss[-1]:.3g}"
    return shown
