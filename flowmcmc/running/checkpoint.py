"""Runs that survive being killed: `sample` keeps what it has in a folder and, called again, goes on from there.

The folder holds ``config.json`` (what the run is), ``start`` (what was found from a wide density), ``warm-`` and a
flow's name (the end of warm-up), and blocks of draws with the chains' positions after each, ``draws-000001000``, ...;
all are renamed when complete.
Keys are folded from the round, so that the draws are those of an unbroken run, bit for bit.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.base import PyTree, SamplingAlgorithm
from flowmcmc.ground.devices import mesh_of
from flowmcmc.ground.leaves import concatenate_trees, digest
from flowmcmc.running.run import CHUNK_SIZE, RunState, keep_all, run

__all__ = ["Checkpoint", "draw_in_blocks", "load_or_compute", "make_writable", "place_like"]

MEND = "Remove it and all blocks of draws after it, and the run goes on from what was before."


class Checkpoint:
    """A run's folder.

    Parameters
    ----------
    folder
        Made if it does not exist.
    config
        Of `describe_run`; compared with what is there.

    Raises
    ------
    ValueError
        If the folder belongs to another run, naming the fields that differ.
    OSError
        If it cannot be made or written to.
    """

    def __init__(self, folder, config: dict):
        self.folder = make_writable(folder)
        path = self.folder / "config.json"
        config = json.loads(json.dumps(config))
        if not path.exists():
            writing = path.with_suffix(".writing")
            writing.write_text(json.dumps(config, indent=1))
            writing.replace(path)
            return
        try:
            known = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"checkpoint {path} cannot be read: it was altered or truncated. {error}") from error
        different = [name for name in config.keys() | known.keys() if config.get(name) != known.get(name)]
        if different:
            told = "; ".join(f"{name}: {known.get(name)} there, {config.get(name)} here" for name in sorted(different))
            raise ValueError(f"checkpoint {self.folder} belongs to another run ({told}): name another folder.")

    def save(self, name: str, tree: PyTree) -> None:
        """Write the leaves of `tree` as `name`, or leave no trace of it.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        import orbax.checkpoint as ocp

        leaves = {f"{index:03d}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(tree))}
        writing = self.folder / f"{name}.writing"
        shutil.rmtree(writing, ignore_errors=True)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(writing / "arrays", leaves)
            (writing / "digest").write_text(digest(list(leaves.values())))
            writing.rename(self.folder / name)
        except Exception as error:  # a full disk makes orbax raise ValueError, with a page of text
            shutil.rmtree(writing, ignore_errors=True)
            why = f"could not be written ({type(error).__name__}): {str(error)[:300]}"
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            raise OSError(number, f"checkpoint {why} ... Is the disk full?", str(self.folder / name)) from error

    def load(self, name: str, make_like: Callable) -> Any:
        """What `save` wrote, in the structure of what ``make_like()`` returns; None if it is not there.

        Raises
        ------
        ValueError
            If it is not what was written.
        """
        import orbax.checkpoint as ocp

        path = self.folder / name
        if not path.exists():
            return None
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                found: Any = checkpointer.restore(path / "arrays")
            leaves = [np.asarray(found[key]) for key in sorted(found)]
            is_whole = digest(leaves) == (path / "digest").read_text()
        except Exception as error:  # whatever a damaged file makes the reader raise
            raise ValueError(
                f"checkpoint {path} cannot be read ({type(error).__name__}): it was altered or truncated. {MEND}"
            ) from error
        structure = jax.tree.structure(make_like())
        if not is_whole or len(leaves) != structure.num_leaves:
            raise ValueError(f"checkpoint {path} does not hold what was written there: it was altered. {MEND}")
        return jax.tree.unflatten(structure, leaves)

    def blocks(self) -> list[int]:
        """Rounds done at the end of each block of draws, in order."""
        return sorted(int(path.name.removeprefix("draws-")) for path in self.folder.glob("draws-*[0-9]"))


def load_or_compute(store: Checkpoint | None, name: str, compute: Callable, make_like: Callable) -> Any:
    """What a stage of a run has left in the folder, structured like ``make_like()``; else ``compute()``, which is kept
    there if there is a folder."""
    if store is None:
        return compute()
    if (found := store.load(name, make_like)) is None:
        store.save(name, found := compute())
    return found


def draw_in_blocks(
    store: Checkpoint, rng_key, algorithm: SamplingAlgorithm, state: RunState, num_rounds: int, every: int, progress_bar
):
    """`run` from `state` until `num_rounds` are done, in blocks of `every` rounds, each kept, after those that are
    there. The state and the trace since.

    Raises
    ------
    ValueError
        If a block was altered, or one is missing.
    """

    def like():
        return start.sampler, jax.eval_shape(lambda s: keep_all(*algorithm.step(rng_key, s)), start.sampler)

    start = state
    pieces = []
    for done in [done for done in store.blocks() if done > start.round]:
        sampler, trace = store.load(name := f"draws-{done:09d}", like)
        if (first := done - len(jax.tree.leaves(trace)[0])) != state.round:
            raise ValueError(
                f"checkpoint {store.folder / name} begins after {first} draws, but the blocks before it end after "
                f"{state.round}: one was removed. {MEND}"
            )
        state = RunState(done, place_like(start.sampler, sampler))
        pieces.append(trace)
    while state.round < num_rounds:
        begun = state.round
        size = min(every - begun % every, num_rounds - begun)
        state, trace = run(rng_key, algorithm, state, size, chunk_size=CHUNK_SIZE, progress_bar=progress_bar)
        if state.round > begun:
            store.save(f"draws-{state.round:09d}", (state.sampler, trace))
        pieces.append(trace)
        if state.round < begun + size:  # Ctrl-C
            break
    return state, concatenate_trees(pieces)


def place_like(given: PyTree, loaded: PyTree) -> PyTree:
    """What was loaded, on the mesh where the leaves of `given` are; without one it stays where JAX puts it, or what is
    compiled would be compiled again for arrays that are bound to a device."""
    if mesh_of(given) is None:
        return jax.tree.map(jnp.asarray, loaded)
    place = lambda old, new: jax.device_put(new, old.sharding) if isinstance(old, jax.Array) else new
    return jax.tree.map(place, given, loaded)


def make_writable(folder) -> Path:
    """The folder's absolute path, made if it does not exist, after a look whether a file can be made there.

    Raises
    ------
    OSError
        If not.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"a checkpoint folder must be a path, got {folder!r}.")
    folder = Path(folder).absolute()
    probe = folder / "probe.writing"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(4096))
        probe.unlink()
    except OSError as error:
        why = f"cannot write to this folder ({error.strerror}): name another one, or see to its permissions and room"
        raise OSError(error.errno, why, str(folder)) from error
    return folder
