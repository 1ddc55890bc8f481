"""What XLA's threads do to the wall time of a run on a CPU: with all cores, and with one thread, `PJRT_NPROC=1`.

python benchmarks/threads.py         stored in results/threads.json

Each row is a process of its own: `sample` with its defaults, compilation included, then more draws.
"""

import json
import os
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "threads.json"
CASES = (
    ("two_gaussians_2", 100),
    *((name, chains) for name in ("two_gaussians_16", "logistic_31") for chains in (100, 1000)),
)
DRAWS = 200_000  # over all chains


def measure(name: str, chains: int) -> dict:
    """Wall seconds in this process."""
    from _table import TARGETS

    import flowmcmc

    target = TARGETS[name]()
    began = time.perf_counter()
    result = flowmcmc.sample(
        0, target.logdensity_fn, target.start, num_chains=chains, num_samples=100, progress_bar=False
    )
    sampled = time.perf_counter()
    result.more(DRAWS // chains, progress_bar=False)
    drawn = time.perf_counter() - sampled
    return {"sample": sampled - began, "microseconds of a draw": 1e6 * drawn / DRAWS}


def main() -> None:
    """The table."""
    from _record import run_alone, store

    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
        return
    rows = []
    for name, chains in CASES:
        for threads in ("all", "1"):
            environment = os.environ | ({"PJRT_NPROC": "1"} if threads == "1" else {})
            rows.append({"target": name, "chains": chains, "threads": threads})
            rows[-1] |= run_alone(__file__, name, chains, environment=environment)
            print("  ".join(f"{value:.1f}" if isinstance(value, float) else str(value) for value in rows[-1].values()))
    store(RESULT, __file__, rows)


if __name__ == "__main__":
    main()
