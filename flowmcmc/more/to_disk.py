"""Draws that would not fit in memory: appended to a zarr store block by block, and opened lazily afterwards.

The folder holds ``draws.zarr``, and beside it what `Checkpoint` keeps: ``config.json`` (what the run is) and
``state-...``, where the chains are after so many draws. A block counts once the store's consolidated metadata lists
it: one file, renamed into place. Readers go by that file: a half-written block is never seen, and the next call
overwrites it.
"""

import errno
import gc
import math
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.checks import check_result
from flowmcmc.ground.leaves import digest
from flowmcmc.reading.datatree import to_datatree
from flowmcmc.result import SampleResult
from flowmcmc.running.checkpoint import Checkpoint, place_like
from flowmcmc.running.describe import describe_run
from flowmcmc.running.run import CHUNK_SIZE, RunState, run

__all__ = ["draw_to_disk"]

CHUNK_BYTES = 2**26  # of one variable, at most: readers hold several chunks at once
GROUPS = ("posterior", "sample_stats")


def draw_to_disk(result: SampleResult, num_samples: int, path, *, block: int = 1000, progress_bar: bool = True):
    """Go on where the draws of `result` stopped, with the new draws on disk and one block of them in memory.

    They are bit for bit those of ``result.more(num_samples)``. Called again with the same `result`, also after a
    ``kill -9``, the run goes on from the last complete block; with more `num_samples` it is continued.

    Parameters
    ----------
    result
        Of `sample`; ask that for few draws, ``sample(..., num_samples=100)``, where the others go to disk.
    num_samples
        Draws for each chain that the store is to hold; those of `result` are not copied to it.
    path
        A folder, made if it does not exist.
    block
        Draws for each chain between two writes; bounds the memory.
    progress_bar
        Show one for each block.

    Returns
    -------
    xarray.DataTree
        ``path/draws.zarr`` with the groups of `to_datatree`, opened lazily: what is asked for is read each time, and
        not kept. Thin it for what needs all draws at once, as in
        ``flowmcmc.summary(tree.isel(draw=slice(None, None, 20)))``. ``xarray.open_datatree(store, engine="zarr")``
        opens it elsewhere. After Ctrl-C it holds the draws so far, marked ``partial``.

    Raises
    ------
    ImportError
        If zarr is not installed.
    ValueError
        If warm-up was interrupted, or the folder belongs to another run, naming the fields that differ.
    OSError
        If `path` cannot be written to or has no room for the draws, before any is made; or if the disk fills later.

    Example
    -------
    >>> result = flowmcmc.sample(0, logdensity_fn, wide, num_samples=100, checkpoint="my_run")
    >>> tree = flowmcmc.draw_to_disk(result, 1_000_000, "my_draws")
    >>> tree.posterior["x"].isel(draw=slice(None, None, 100)).mean(("chain", "draw"))
    """
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise ImportError("draw_to_disk writes with zarr, which is missing: pip install 'flowmcmc[zarr]'.") from error
    check_counts({"num_samples": num_samples, "block": block})
    check_result(result)
    if result.trace is None:
        raise ValueError("warm-up was interrupted, so there is nothing to go on from: call sample again.")
    if jax.process_count() > 1:
        raise ValueError("draw_to_disk works in one process only, and there are several: use result.more.")
    asked = {name: result.settings[name] for name in ("num_local_steps", "num_flow_steps", "local_share")}
    asked |= {"drawn before": result.state.round, "tuning": digest(jax.tree.leaves(result.tuning))}
    folder = Checkpoint(path, describe_run(result.rng_key, result.logdensity_fn, result.state.position, asked))
    store = folder.folder / "draws.zarr"
    done = recover_blocks(folder, store)
    check_room(store, result.trace, num_samples - done)
    state = result.state
    if done:
        sampler = folder.load(state_name(done), lambda: result.state.sampler)
        state = RunState(result.state.round + done, place_like(state.sampler, sampler))
    try:
        while done < num_samples:
            size, began = min(block - done % block, num_samples - done), time.perf_counter()
            label = progress_bar and f"draws {done} to {done + size} of {num_samples}"
            state, trace = run(result.rng_key, result.algorithm, state, size, chunk_size=CHUNK_SIZE, progress_bar=label)
            now = state.round - result.state.round
            if now > done or not done:
                append_block(store, trace, result, done, block)
                folder.save(state_name(now), state.sampler)
                commit_block(store, num_samples, time.perf_counter() - began)
                shutil.rmtree(folder.folder / state_name(done), ignore_errors=True)
                gc.collect()  # a DataTree refers to itself, so its block is not freed otherwise
            is_interrupted, done = now < done + size, now
            if is_interrupted:
                break
        if num_samples <= done:
            commit_block(store, num_samples, 0.0, is_partial=False)
    except OSError as error:
        said = f"{error.strerror or error}: {done} draws of each chain are safe. Make room and call again, to go on"
        raise OSError(error.errno, said, str(store)) from error
    return open_draws(store)


def recover_blocks(folder: Checkpoint, store: Path) -> int:
    """How many draws are complete; what a killed call wrote beyond them is removed."""
    import zarr

    done = 0
    if (store / ".zmetadata").exists():
        done = open_draws(store)["posterior"].sizes["draw"]
        root: Any = zarr.open_group(store, mode="r+", zarr_format=2, use_consolidated=False)
        for _, array in (pair for group in GROUPS for pair in root[group].arrays()):
            along = array.attrs["_ARRAY_DIMENSIONS"]
            array.resize(tuple(done if name == "draw" else size for name, size in zip(along, array.shape)))
    else:
        shutil.rmtree(store, ignore_errors=True)
    for state in folder.folder.glob("state-*"):
        if state.name != state_name(done):
            shutil.rmtree(state)
    if done and not (folder.folder / state_name(done)).exists():
        raise ValueError(
            f"{folder.folder / state_name(done)} was removed, so this run cannot go on: name another folder."
        )
    return done


def append_block(store: Path, trace, result: SampleResult, done: int, block: int) -> None:
    """Write a block after the `done` draws that are there; readers do not see it before `commit_block`."""
    attrs = result.settings | {"partial": 1, "sampling_seconds": 0.0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found chain dimension to be longer")  # a block may be short
        tree = to_datatree(trace, warmup=None if done else result.warmup, attrs=attrs)
    first = result.state.round + done  # draws are numbered on from those of `result`
    for name in GROUPS:
        group = tree[name].to_dataset()
        tree[name].dataset = group.assign_coords(draw=first + np.arange(group.sizes["draw"]))
        if done:
            group = tree[name].to_dataset()
            group.to_zarr(store, group=name, append_dim="draw", consolidated=False, zarr_format=2)
    if not done:
        sizes = {
            name: {v: {"chunks": chunk_shape(a, block)} for v, a in tree[name].variables.items()} for name in GROUPS
        }
        # zarr format 2 keeps the consolidated metadata in a file of its own
        tree.to_zarr(
            store, mode="w", encoding={f"/{k}": v for k, v in sizes.items()}, consolidated=False, zarr_format=2
        )


def commit_block(store: Path, num_samples: int, seconds: float, *, is_partial: bool = True) -> None:
    """Publish what was appended, and record how far the run has come."""
    import zarr

    root: Any = zarr.open_group(store, mode="r+", zarr_format=2, use_consolidated=False)
    spent = root.attrs["sampling_seconds"] + seconds
    root.attrs.update({"num_samples": num_samples, "partial": int(is_partial), "sampling_seconds": spent})
    zarr.consolidate_metadata(store, zarr_format=2)


def open_draws(store: Path):
    """Open the complete blocks as a lazy DataTree; every access reads from disk."""
    import xarray as xr

    return xr.open_datatree(store, engine="zarr", consolidated=True, chunks=None, cache=False)


def chunk_shape(variable, block: int) -> tuple[int, ...]:
    """Shape of a variable's chunks: a block of draws, or fewer if that would exceed CHUNK_BYTES."""
    sizes = dict(variable.sizes)
    if "draw" in sizes:
        bytes_each = variable.dtype.itemsize * math.prod(n for name, n in sizes.items() if name != "draw")
        sizes["draw"] = max(1, min(block, CHUNK_BYTES // max(1, bytes_each)))
    return tuple(sizes.values())


def check_room(store: Path, trace, num_samples: int) -> None:
    """Raise if so many draws, which hardly compress, cannot fit on the disk."""
    leaves = jax.tree.leaves(trace)
    needed = sum(leaf.dtype.itemsize * math.prod(leaf.shape[1:]) for leaf in leaves) * max(0, num_samples)
    free = shutil.disk_usage(store.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{num_samples} draws of each chain need {needed / 1e9:.3g} GB, but {free / 1e9:.3g} are free",
            str(store),
        )


def state_name(done: int) -> str:
    """Name of the folder with the state after `done` draws."""
    return f"state-{done:09d}"
