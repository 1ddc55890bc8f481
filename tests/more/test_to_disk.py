"""Draws on disk are those that memory would have held, whatever interrupts the run."""

import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import namedtuple
from pathlib import Path

import jax
import numpy as np
import pytest
from support.runs import tiny_run

import flowmcmc
from flowmcmc.more import to_disk

pytest.importorskip("zarr")

PROGRAM = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[2])
from more.test_to_disk import draw, start
draw(start(), 1_000_000, sys.argv[1], block=200)
"""


def start(seed=0, **options):
    return tiny_run(seed=seed, **{"num_samples": 5} | options)


@pytest.fixture(scope="module")
def result():
    return start()


@pytest.fixture(scope="module", autouse=True)
def collections_are_quick(result):
    """Garbage is collected after each block: what other tests have left is not searched every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def in_memory(result):
    return result.more(200, progress_bar=False).datatree


def draw(result, num_samples, path, block=20):
    return flowmcmc.draw_to_disk(result, num_samples, path, block=block, progress_bar=False)


def assert_first(tree, in_memory, num):
    """The store holds the first `num` draws after those of the result, in both groups, to the last bit."""
    import xarray as xr

    for name in ("posterior", "sample_stats"):
        wanted = in_memory[name].to_dataset().isel(draw=slice(5, 5 + num))
        xr.testing.assert_identical(tree[name].to_dataset().load().drop_attrs(), wanted.drop_attrs())


def test_draws_are_those_of_more_and_read_when_asked_for(tmp_path, result, in_memory):
    import arviz as az

    tree = draw(result, 50, tmp_path)
    assert not tree.posterior["x"].variable._in_memory
    assert_first(tree, in_memory, 50)
    assert tree.attrs["partial"] == 0 and tree.attrs["num_samples"] == 50
    assert set(tree.children) == set(result.datatree.children)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "draws.zarr", "state-000000050"}
    assert_first(draw(result, 100, tmp_path, block=40), in_memory, 100)
    again = draw(result, 20, tmp_path)  # fewer than there are
    assert_first(again, in_memory, 100)
    assert_first(az.from_zarr(tmp_path / "draws.zarr"), in_memory, 100)
    assert "mode 0" in str(flowmcmc.summary(again.isel(draw=slice(None, None, 4))))


def test_memory_holds_one_block(tmp_path, result, monkeypatch):
    append, held = to_disk.append_block, []

    def watched(store, trace, *rest):
        block = sum(leaf.nbytes for leaf in jax.tree.leaves(trace))
        held.append(tracemalloc.get_traced_memory()[0] / block)
        append(store, trace, *rest)

    monkeypatch.setattr(to_disk, "append_block", watched)
    tracemalloc.start()
    gc.disable()  # what is left to chance
    try:
        draw(result, 3200, tmp_path, block=400)
    finally:
        gc.enable()
        tracemalloc.stop()
    # whatever the first blocks import and compile stays
    assert len(held) == 8 and held[7] - held[2] < 1


class Killed(BaseException):
    """What no code of the library catches."""


@pytest.fixture(scope="module")
def thirty(tmp_path_factory, result):
    """A folder with 30 draws, in one whole block and one half."""
    folder = tmp_path_factory.mktemp("thirty")
    draw(result, 30, folder)
    return folder


@pytest.mark.parametrize("where", ["within a group", "between groups", "before the state", "before it counts", "after"])
def test_a_block_half_written_is_not_seen_and_overwritten(tmp_path, result, in_memory, thirty, monkeypatch, where):
    import xarray as xr
    import zarr

    shutil.copytree(thirty, tmp_path, dirs_exist_ok=True)
    owner, name, nth = {
        "within a group": (zarr.Array, "__setitem__", 3),
        "between groups": (xr.Dataset, "to_zarr", 2),
        "before the state": (to_disk.Checkpoint, "save", 1),
        "before it counts": (zarr, "consolidate_metadata", 1),
        "after": (shutil, "rmtree", 2),
    }[where]
    whole, calls = getattr(owner, name), []

    def killed(*args, **kwargs):
        calls.append(None)
        if len(calls) == nth:
            raise Killed
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, killed)
        draw(result, 60, tmp_path)
    seen = xr.open_datatree(tmp_path / "draws.zarr", engine="zarr")
    assert_first(seen, in_memory, 40 if where == "after" else 30)
    assert_first(draw(result, 60, tmp_path), in_memory, 60)


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    program, folder = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)

    def done():
        return max((int(p.name[6:]) for p in folder.glob("state-*[0-9]")), default=0)

    for draws in (200, 800):
        child = subprocess.Popen(
            [sys.executable, program, folder, Path(__file__).parents[1]], env=os.environ | {"JAX_PLATFORMS": "cpu"}
        )
        waited = time.monotonic()
        while done() < draws and time.monotonic() - waited < 120:
            time.sleep(0.02)
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
    wanted = done() + 50
    result = start()
    assert wanted >= 850
    assert_first(draw(result, wanted, folder, block=200), result.more(wanted, progress_bar=False).datatree, wanted)


@pytest.mark.parametrize("nth", [1, 9, 11])
def test_ctrl_c_leaves_what_there_is_marked(tmp_path, result, in_memory, interrupt, monkeypatch, nth):
    interrupt(nth)  # before the first draw, between blocks, within the second
    with pytest.warns(UserWarning, match="interrupted after"):
        part = draw(result, 90, tmp_path, block=40)
    monkeypatch.undo()
    done = part.posterior.sizes["draw"]
    assert part.attrs["partial"] == 1 and {1: done == 0, 9: done == 40, 11: 40 < done < 80}[nth]
    assert_first(part, in_memory, done)
    whole = draw(result, 90, tmp_path, block=40)
    assert_first(whole, in_memory, 90)
    assert whole.attrs["partial"] == 0


def test_a_foreign_folder_is_refused_by_field(tmp_path, result):
    draw(result, 10, tmp_path)
    with pytest.raises(ValueError, match=r"another run.*drawn before: 5 there, 7 here"):
        draw(result.more(2, progress_bar=False), 10, tmp_path)
    with pytest.raises(ValueError, match=r"another run.*key:"):
        draw(start(seed=1), 10, tmp_path)
    shutil.rmtree(tmp_path / "state-000000010")
    with pytest.raises(ValueError, match="was removed"):
        draw(result, 20, tmp_path)


def test_a_full_disk_keeps_what_is_complete(tmp_path, result, in_memory, monkeypatch):
    with monkeypatch.context() as patch:
        usage = namedtuple("usage", "free")
        patch.setattr(shutil, "disk_usage", lambda path: usage(100))
        with pytest.raises(OSError, match=r"need .* GB, but 1e-07 are free.*draws.zarr"):
            draw(result, 20, tmp_path)
    draw(result, 20, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # bytes of one file; writing more is an OSError
    try:
        with pytest.raises(OSError, match=r"20 draws of each chain are safe.*draws.zarr"):
            draw(result, 200, tmp_path, block=180)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_first(draw(result, 60, tmp_path), in_memory, 60)


def test_what_cannot_work_fails_before_any_draw(tmp_path, result, interrupt, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to this folder.*file/run"):
        draw(result, 20, tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        draw(result, 0, tmp_path)
    with pytest.raises(ValueError, match="block must be at least 1"):
        draw(result, 1, tmp_path, block=0)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'flowmcmc\[zarr\]'"):
        draw(result, 1, tmp_path)
    monkeypatch.undo()
    interrupt(1)
    with pytest.warns(UserWarning, match="interrupted"):
        part = start()
    with pytest.raises(ValueError, match="call sample again"):
        draw(part, 1, tmp_path)


def test_large_variables_are_cut_into_chunks():
    import xarray as xr

    large = xr.Variable(("chain", "draw", "x"), np.broadcast_to(0.0, (100, 1000, 10_000)))
    assert to_disk.chunk_shape(large, 1000) == (100, 8, 10_000)
    assert to_disk.chunk_shape(large.isel(x=slice(3)), 1000) == (100, 1000, 3)
    assert to_disk.chunk_shape(xr.Variable("chain", np.arange(3)), 1000) == (3,)
