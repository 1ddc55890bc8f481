"""How CPU seconds and memory of production rounds grow with chains, with draws, and with what is kept of them.

python benchmarks/growth.py          stored in results/growth.json

Each row is a process of its own: two Gaussians in d = 16 with a mixture as its flow, warmed up, then so many rounds
with all draws in memory, all on disk, or only their log density kept. Memory is the peak of the process beyond that
after warm-up.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "growth.json"
DIM = 16
CASES = (
    *((chains, 1000, "memory") for chains in (10, 100, 1000, 10_000)),
    *((100, rounds, kept) for kept in ("memory", "disk", "log density") for rounds in (4000, 16_000, 64_000)),
)


def log_density_only(state, info):
    """What is kept of a round."""
    return info.logdensity


def measure(chains: int, rounds: int, kept: str) -> dict:
    """In this process."""
    from _targets import two_gaussians

    import flowmcmc

    target = two_gaussians(DIM)
    few = {"num_chains": chains, "num_particles": max(2000, chains), "num_samples": 100, "progress_bar": False}
    flow = flowmcmc.gaussian_mixture(target.mean.astype("float32"), num_components=2)
    result = flowmcmc.sample(0, target.logdensity_fn, target.start, flow=flow, **few)

    def draw(rounds, folder):
        if kept == "disk":
            return flowmcmc.draw_to_disk(result, rounds, folder, progress_bar=False)
        keep = {"keep": log_density_only} if kept == "log density" else {}
        return flowmcmc.run(result.rng_key, result.algorithm, result.state, rounds, progress_bar=False, **keep)

    with tempfile.TemporaryDirectory() as folder:
        draw(1000 if kept == "disk" else 100, f"{folder}/first")  # compiles, and imports what it needs
        before, began = peak(), time.process_time()
        draw(rounds, f"{folder}/draws")
        seconds, beyond = time.process_time() - began, peak() - before
    return {
        "chains": chains,
        "rounds": rounds,
        "kept": kept,
        "microseconds of a chain and round": 1e6 * seconds / chains / rounds,
        "MiB beyond warm-up": beyond,
        "MiB of the draws": chains * rounds * (4 * DIM + 24) / 2**20,
    }


def peak() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """The table."""
    from _record import run_alone, store

    if len(sys.argv) > 1:
        chains, rounds, kept = sys.argv[1:]
        print(json.dumps(measure(int(chains), int(rounds), kept)))
        return
    rows = []
    for case in CASES:
        rows.append(row := run_alone(__file__, *case))
        print("  ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    store(RESULT, __file__, rows)


if __name__ == "__main__":
    main()
