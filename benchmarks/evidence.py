"""Evidence of the galaxy mixture (Chib 1995) from runs of `sample`, beside 1.9e8 prior draws and Neal (1999).

python benchmarks/evidence.py            five seeds, stored in results/evidence.json
"""

import json
import time
from pathlib import Path

from _record import known_versions, machine

import flowmcmc
from flowmcmc.examples import galaxies

RESULTS = Path(__file__).parent / "results" / "evidence.json"
TRUTH, ERROR = -226.77, 0.03  # prior draws, ours and Neal's together


def measure(seed: int) -> dict:
    """One run and its two estimates."""
    import jax

    began = time.process_time()
    key_start, key_run = jax.random.split(jax.random.key(seed))
    starts = galaxies.starting_positions(key_start, 96)
    result = flowmcmc.sample(key_run, galaxies.logdensity, starts, num_warmup=600, progress_bar=False)
    found = flowmcmc.log_evidence(result)
    alone = flowmcmc.log_z_importance(1, galaxies.logdensity, result.flow, result.params)
    return {
        "seed": seed,
        "flow": result.settings["flow"],
        "log_z": found.log_z,
        "error": found.error,
        "problems": found.problems,
        "pareto_k": found.pareto_k,
        "importance": alone.log_z,
        "importance_error": alone.error,
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    """Run, print, store."""
    rows = []
    for seed in range(5):
        rows.append(row := measure(seed))
        print(
            f"seed {seed}: bridge {row['log_z']:.3f} +- {row['error']:.3f}, importance sampling "
            f"{row['importance']:.3f} +- {row['importance_error']:.3f}, truth {TRUTH} +- {ERROR}; {row['flow']}, "
            f"{row['cpu_seconds']:.0f} CPU s; {'; '.join(row['problems']) or 'no problem found'}"
        )
    record = {
        "command": "python benchmarks/evidence.py",
        "versions": known_versions(),
        "machine": machine(),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
