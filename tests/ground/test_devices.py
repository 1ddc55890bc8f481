"""Chains over several devices, and over two processes: the same draws, whatever the number."""

import json
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowmcmc

COMMON = """
import jax, json, sys, tempfile
import jax.numpy as jnp
import numpy as np
jax.config.update("jax_enable_x64", True)
import flowmcmc

def logdensity(x):
    return jnp.logaddexp(jnp.log(2) - 0.5 * jnp.sum((x - 3) ** 2), -0.5 * jnp.sum((x + 3) ** 2))

starts = 3 * jax.random.normal(jax.random.key(0), (16, 2))
flow = flowmcmc.gaussian_mixture(starts[0], num_components=2)

def draw(mesh):
    result = flowmcmc.sample(
        1, logdensity, starts, flow=flow, num_warmup=20, num_samples=20, mesh=mesh, keep_warmup=True, progress_bar=False
    )
    more = result.more(5, progress_bar=False)
    return np.concatenate([result.warmup.position, more.trace.position]), more.state.position.sharding
"""

EIGHT = """
runs = {}
for num in (1, 2, 8):
    draws, sharding = draw(flowmcmc.chain_mesh(jax.devices()[:num]))
    assert sharding.num_devices == num and (num == 1 or not sharding.is_fully_replicated)
    runs[num] = draws
alone, _ = draw(None)
with tempfile.TemporaryDirectory() as folder:  # and a run that is gone on with stays on its devices
    mesh = flowmcmc.chain_mesh(jax.devices()[:2])
    for num in (5, 10):
        kept = flowmcmc.sample(
            1, logdensity, starts, flow=flow, num_warmup=20, num_samples=num, mesh=mesh, checkpoint=folder,
            checkpoint_every=5, progress_bar=False,
        )
        assert kept.state.position.sharding.num_devices == 2
    assert np.array_equal(kept.trace.position, runs[2][20:30])
print(json.dumps([float(np.abs(runs[num] - alone).max()) for num in runs] + [float(np.ptp(alone))]))
"""

TWO = """
draws, sharding = draw(flowmcmc.chain_mesh())
assert sharding.num_devices == jax.process_count() == 2
print(json.dumps(draws.tolist()))
"""


def start(script, *arguments, devices=1):
    import os

    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_one_two_and_eight_devices_give_the_same_draws():
    *differences, spread = finish(start(COMMON + EIGHT, devices=8))
    # float64 rounding (shards of another length are vectorised otherwise), grown over 45 rounds of a chaotic map
    assert max(differences) < 1e-6 and spread > 3


@pytest.mark.slow
def test_two_processes_give_the_draws_of_one():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    join = "import jax, sys; jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))\n"
    both = [start(join + COMMON + TWO, address, str(index)) for index in range(2)]
    first, second = (np.array(finish(process)) for process in both)
    assert np.array_equal(first, second)
    alone = np.array(finish(start(COMMON + "print(json.dumps(draw(None)[0].tolist()))")))
    assert np.abs(first - alone).max() < 1e-6


def test_chains_that_cannot_be_split_are_refused():
    mesh = flowmcmc.chain_mesh()
    placed = flowmcmc.shard_chains(jnp.zeros((4, 2)), mesh)
    assert placed.sharding.mesh == mesh
    three = jax.sharding.AbstractMesh((3,), ("chains",))
    with pytest.raises(ValueError, match="16 chains cannot be split evenly over 3 devices: use 15, say"):
        flowmcmc.shard_chains(jnp.zeros((16, 2)), three)
    other = jax.make_mesh((1,), ("batch",))
    with pytest.raises(ValueError, match=r"mesh must have the one axis 'chains', got \('batch',\)"):
        flowmcmc.shard_chains(jnp.zeros((16, 2)), other)
