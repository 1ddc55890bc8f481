"""Driving a sampler on the host: compiled chunks of rounds, a progress bar, interruption and exact resumption.

Round t uses the key ``fold_in(rng_key, t)``, so that a run in pieces is the unbroken run, bit for bit. One function of
a dynamic number of rounds is compiled and serves every chunk; chunks grow to about half a second each.
"""

import time
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flowmcmc.base import Array, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import as_arrays, as_key, check_counts, check_sampler
from flowmcmc.ground.compiling import compiler_options, strongly_typed
from flowmcmc.ground.devices import mesh_context, mesh_of, replicate

__all__ = ["RunState", "Trace", "run"]

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
    """`run` on the mesh in use."""
    state = positions if isinstance(positions, RunState) else init_state(rng_key, algorithm, positions)
    advance = compile_chunk(algorithm.step, keep, chunk_size)
    first, pieces, size = state.round, [], 1
    label = progress_bar if isinstance(progress_bar, str) else None
    with tqdm(total=num_rounds, desc=label, disable=not progress_bar, leave=False) as bar:
        try:
            while (done := state.round - first) < num_rounds:
                size = min(size, chunk_size, num_rounds - done)
                began = time.perf_counter()
                sampler, kept = advance(rng_key, state.sampler, state.round, size)
                piece = first_rows(kept, size)
                seconds = time.perf_counter() - began
                pieces.append(piece)
                state = RunState(state.round + size, sampler)
                bar.update(size)
                bar.set_postfix(progress_postfix(piece))
                # the first chunk is slow because it compiles
                size = 2 * size if seconds < CHUNK_SECONDS or len(pieces) == 1 else max(1, size // 2)
        except KeyboardInterrupt:
            warnings.warn(
                f"interrupted after {state.round - first} of {num_rounds} rounds; returning what was done so far.",
                stacklevel=2,
            )
    if not pieces:
        shapes = jax.eval_shape(advance, rng_key, state.sampler, state.round, 0)[1]
        pieces = [jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), shapes)]
    # Ctrl-C may have fallen between keeping a piece and counting it
    done = state.round - first
    return state, jax.tree.map(lambda *leaves: np.concatenate(leaves)[:done], *pieces)


def first_rows(kept: PyTree, size: int) -> PyTree:
    """On the host; copies where there are more, since a view would keep the memory of all."""
    rows = jax.tree.map(np.asarray, kept)
    return jax.tree.map(lambda leaf: leaf if len(leaf) == size else leaf[:size].copy(), rows)


def init_state(rng_key: Array, algorithm: SamplingAlgorithm, positions: PyTree) -> RunState:
    """State before the first round, compiled too."""
    positions = as_arrays(positions)

    def init(positions, rng_key):
        return strongly_typed(algorithm.init(positions, rng_key))

    # any number apart from the rounds' own
    return RunState(0, jax.jit(init)(positions, jax.random.fold_in(rng_key, 2**31 - 1)))


@lru_cache(maxsize=16)
def compile_chunk(step: Callable, keep: Callable, chunk_size: int) -> Callable:
    """``(rng_key, state, first_round, num_rounds) -> (state, kept)`` with room for `chunk_size` rounds."""

    def one(rng_key, state, round):
        state, info = step(jax.random.fold_in(rng_key, round), state)
        return state, keep(state, info)

    @partial(jax.jit, compiler_options=compiler_options())
    def advance(rng_key, state, first, num_rounds):
        def body(index, carry):
            state, kept = carry
            state, new = one(rng_key, state, first + index)
            return state, jax.tree.map(lambda rows, row: rows.at[index].set(row), kept, new)

        shapes = jax.eval_shape(one, rng_key, state, first)[1]
        room = jax.tree.map(lambda leaf: jnp.zeros((chunk_size, *leaf.shape), leaf.dtype), shapes)
        state, kept = jax.lax.fori_loop(0, num_rounds, body, (state, room))
        return state, replicate(kept)

    return advance


def progress_postfix(piece) -> dict[str, str]:
    """Acceptance and loss of a chunk for the progress bar, where the infos have them."""
    info = getattr(piece, "info", None)
    rounds = getattr(info, "round", info)
    shown = {}
    for label, field in {"local": "local_acceptance_rate", "flow": "flow_acceptance_rate"}.items():
        if hasattr(rounds, field):
            shown[label] = f"{np.mean(getattr(rounds, field)):.2f}"
    if (training := getattr(info, "training", None)) is not None:
        shown["loss"] = f"{training.heldout_loss[-1]:.3g}"
    return shown
