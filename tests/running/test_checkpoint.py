"""Runs killed and gone on with give the draws of an unbroken run; damaged or foreign folders are refused."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.runs import tiny_run as run
from support.targets import two_modes

import flowmcmc

PROGRAM = """
import sys
import jax, jax.numpy as jnp
import flowmcmc
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[2])
from support.targets import two_modes

flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
flowmcmc.sample(
    0, two_modes, 3.0 * jax.random.normal(jax.random.key(1), (20, 2)), flow=flow, num_warmup=10, num_samples=100_000,
    num_local_steps=1, num_flow_steps=1, progress_bar=False, checkpoint=sys.argv[1], checkpoint_every=200,
)
"""


@pytest.fixture(scope="module")
def unbroken():
    return run(num_samples=60)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_in_three_calls_is_the_unbroken_one(tmp_path, unbroken):
    first = run(num_samples=25, checkpoint=tmp_path, checkpoint_every=10)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json", "draws-000000010", "draws-000000020", "draws-000000025", "warm-given"
    ]  # fmt: skip
    run(num_samples=40, checkpoint=tmp_path, checkpoint_every=10)
    last = run(num_samples=60, checkpoint=tmp_path, checkpoint_every=10)
    assert_same(last.trace, unbroken.trace)
    assert_same(last.warmup, unbroken.warmup)
    assert_same(first.trace.position, unbroken.trace.position[:25])
    assert_same(last.more(5, progress_bar=False).trace, unbroken.more(5, progress_bar=False).trace)


def test_ctrl_c_keeps_its_draws(tmp_path, unbroken, interrupt, monkeypatch):
    interrupt(7)  # in the second block
    with pytest.warns(UserWarning, match="interrupted after"):
        part = run(num_samples=60, checkpoint=tmp_path, checkpoint_every=4)
    monkeypatch.undo()
    assert part.settings["partial"] == 1 and 0 < len(part.trace.position) < 60
    assert_same(run(num_samples=60, checkpoint=tmp_path, checkpoint_every=7).trace, unbroken.trace)


def test_a_run_from_a_wide_density_does_not_search_twice(tmp_path, interrupt, monkeypatch):
    options = {"num_chains": 20, "num_particles": 200, "num_warmup": 30, "num_samples": 12, "progress_bar": False}
    wide = flowmcmc.normal(jnp.zeros(2), scale=10.0)
    whole = flowmcmc.sample(0, two_modes, wide, **options)
    interrupt(2)  # in warm-up
    with pytest.warns(UserWarning, match="interrupted after"):
        flowmcmc.sample(0, two_modes, wide, checkpoint=tmp_path, **options)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "start"]
    monkeypatch.setattr("flowmcmc.sampling.find_start", None)
    part = flowmcmc.sample(0, two_modes, wide, checkpoint=tmp_path, **options | {"num_samples": 5})
    assert part.settings["flow"] == "mixture" and part.settings["num_samples"] == 5
    assert_same(flowmcmc.sample(0, two_modes, wide, checkpoint=tmp_path, **options).trace, whole.trace)
    other = flowmcmc.normal(jnp.zeros(2), scale=9.0)
    with pytest.raises(ValueError, match="starts"):
        flowmcmc.sample(0, two_modes, other, checkpoint=tmp_path, **options)
    with pytest.raises(ValueError, match="num_particles: 200 there, 300 here"):
        flowmcmc.sample(0, two_modes, wide, checkpoint=tmp_path, **options | {"num_particles": 300})


def test_fewer_draws_than_there_are(tmp_path, unbroken):
    run(num_samples=20, checkpoint=tmp_path)
    again = run(num_samples=5, checkpoint=tmp_path)
    assert len(again.trace.position) == 20 == again.settings["num_samples"] and not again.settings["partial"]


def test_ctrl_c_before_the_first_draw(tmp_path, unbroken, interrupt, monkeypatch):
    run(num_samples=1, checkpoint=tmp_path, checkpoint_every=1)
    shutil.rmtree(tmp_path / "draws-000000001")
    interrupt(1)
    with pytest.warns(UserWarning, match="interrupted after 0"):
        part = run(num_samples=20, checkpoint=tmp_path)
    monkeypatch.undo()
    assert_same(part.more(60, progress_bar=False).trace, unbroken.trace)


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    program, folder = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)
    for blocks in (1, 3):
        child = subprocess.Popen(
            [sys.executable, program, folder, Path(__file__).parents[1]], env=os.environ | {"JAX_PLATFORMS": "cpu"}
        )
        waited = time.monotonic()
        while len(list(folder.glob("draws-*[0-9]"))) < blocks and time.monotonic() - waited < 120:
            time.sleep(0.02)
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = max(int(p.name[6:]) for p in folder.glob("draws-*[0-9]"))
    assert done >= 600
    resumed = run(num_samples=done + 50, checkpoint=folder, checkpoint_every=200)
    assert_same(resumed.trace, run(num_samples=done + 50).trace)


def test_a_full_disk_is_named_and_keeps_what_is_complete(tmp_path, unbroken):
    run(num_samples=10, checkpoint=tmp_path, checkpoint_every=10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # bytes of one file; writing more is an OSError
    try:
        with pytest.raises(OSError, match=r"could not be written.*Is the disk full.*draws-000000500"):
            run(num_samples=500, checkpoint=tmp_path, checkpoint_every=500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*.writing*"))
    assert_same(run(num_samples=60, checkpoint=tmp_path, checkpoint_every=10).trace, unbroken.trace)


def test_what_does_not_fit_or_is_damaged_is_refused(tmp_path):
    run(num_samples=20, checkpoint=tmp_path, checkpoint_every=10)
    isir = partial(flowmcmc.isir, num_proposals=4)
    for name, value, told in (
        ("num_local_steps", 2, "1 there, 2 here"),
        ("flow_kernel", isir, r"flowmcmc.kernels.imh.imh there, flowmcmc.kernels.isir.isir\(num_proposals=4\) here"),
        ("local", blackjax.mala, "default there, blackjax.mcmc.mala.as_top_level_api here"),
        ("target_acceptance_rate", 0.8, "0.65 there, 0.8 here"),
        ("keep_warmup", True, "0 there, 1 here"),
        ("flow", flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=3), "log_weights: .2"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: .*{told}"):
            run(**{"num_samples": 20, "checkpoint": tmp_path, name: value})
    with pytest.raises(ValueError, match="density at the first starts"):
        run(lambda x: 1.5 * two_modes(x), num_samples=20, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="key:"):
        run(seed=1, num_samples=20, checkpoint=tmp_path)
    block = tmp_path / "draws-000000010"
    block.rename(tmp_path / "aside")
    with pytest.raises(
        ValueError, match=r"draws-000000020 begins after 10 draws, but the blocks before it end after 0"
    ):
        run(num_samples=20, checkpoint=tmp_path)
    (tmp_path / "aside").rename(block)
    digest = (block / "digest").read_text()
    (block / "digest").write_text("0" * len(digest))
    with pytest.raises(ValueError, match="does not hold what was written there"):
        run(num_samples=20, checkpoint=tmp_path)
    (block / "digest").write_text(digest)
    largest = max((p for p in block.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(ValueError, match="altered"):
        run(num_samples=20, checkpoint=tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        run(num_samples=20, checkpoint=tmp_path)
