"""Wall seconds of a production round over chains and devices, stored in results/devices.json.

python benchmarks/devices.py          forced CPU devices, as many as there are cores; on a GPU machine its GPUs

Each count of devices is a process of its own. CPU devices share the cores of one machine: XLA already spreads one
device's work over them where it pays, so the gain here is less than that of separate machines.
"""

import json
import os
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "devices.json"
CHAINS = (128, 1024, 8192)


def measure(num: int) -> list[dict]:
    """In this process, on `num` devices."""
    import jax
    import jax.numpy as jnp
    from _targets import two_gaussians

    import flowmcmc
    from flowmcmc.choosing.candidates import LOCAL

    target = two_gaussians(16)
    mesh = flowmcmc.chain_mesh(jax.devices()[:num])
    rows = []
    for name in ("mixture", "layers"):
        for chains in CHAINS:
            positions = jax.vmap(target.start.sample)(jax.random.split(jax.random.key(1), chains)) / 4
            make = {"mixture": flowmcmc.gaussian_mixture, "layers": flowmcmc.real_nvp}[name]
            flow = make(positions[0], num_components=2)
            tuning = flowmcmc.Tuning(flow.init(jax.random.key(2), positions[0]), jnp.array(0.5), jnp.ones(16))
            frozen = flowmcmc.freeze(target.logdensity_fn, LOCAL, flow, tuning, num_local_steps=1)
            placed, rounds = flowmcmc.shard_chains(positions, mesh), max(4, 40_000 // chains)
            state, _ = flowmcmc.run(0, frozen, placed, rounds, chunk_size=rounds, progress_bar=False)
            times = []
            for repeat in range(5):
                began = time.perf_counter()
                flowmcmc.run(repeat, frozen, state, rounds, chunk_size=rounds, progress_bar=False)
                times.append((time.perf_counter() - began) / rounds)
            rows.append({"flow": name, "devices": num, "chains": chains, "milliseconds": 1e3 * sorted(times)[2]})
    return rows


def main() -> None:
    """One process for each count."""
    from _record import run_alone, store

    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    cores = len(os.sched_getaffinity(0))
    rows = []
    for num in sorted({1, 2, cores}):
        environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={num}"}
        rows += run_alone(__file__, num, environment=environment)
    for row in rows:
        print(
            f"{row['flow']:8} {row['devices']:3} devices {row['chains']:6} chains {row['milliseconds']:9.2f} ms a round"
        )
    store(RESULT, __file__, rows)


if __name__ == "__main__":
    main()
