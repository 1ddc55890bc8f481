"""Runs killed and gone on with give the draws of an unbroken run; damaged or foreign folders are refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from targets import two_modes

import flowmcmc

PROGRAM = """
import sys
import jax, jax.numpy as jnp
import flowmcmc
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[2])
from targets import two_modes

flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=4)
flowmcmc.sample(
    0, two_modes, 3.0 * jax.random.normal(jax.random.key(1), (20, 2)), flow=flow, num_warmup=10, num_samples=100_000,
    num_local_steps=1, num_flow_steps=1, progress_bar=False, checkpoint=sys.argv[1], checkpoint_every=200,
)
"""
OPTIONS = {"num_warmup": 10, "num_local_steps": 1, "num_flow_steps": 1, "progress_bar": False}


def starts():
    return 3.0 * jax.random.normal(jax.random.key(1), (20, 2))


def run(density=two_modes, **options):
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=4)
    return flowmcmc.sample(0, density, starts(), flow=flow, **OPTIONS | options)


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


def test_killed_at_any_moment(tmp_path):
    program, folder = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)
    for blocks in (1, 3):
        child = subprocess.Popen(
            [sys.executable, program, folder, Path(__file__).parent], env=os.environ | {"JAX_PLATFORMS": "cpu"}
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


def test_what_does_not_fit_or_is_damaged_is_refused(tmp_path):
    run(num_samples=20, checkpoint=tmp_path, checkpoint_every=10)
    with pytest.raises(ValueError, match="num_local_steps: 1 there, 2 here"):
        run(num_samples=20, checkpoint=tmp_path, num_local_steps=2)
    with pytest.raises(ValueError, match="density at the first starts"):
        run(lambda x: 1.5 * two_modes(x), num_samples=20, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="key:"):
        flowmcmc.sample(1, two_modes, starts(), num_samples=20, checkpoint=tmp_path, **OPTIONS)
    block = tmp_path / "draws-000000010"
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
