"""Effective draws per CPU second of the whole process, import and compilation included, beside other samplers.

python benchmarks/efficiency.py                                  the table of the README, stored in results/efficiency
python benchmarks/efficiency.py --target rings --sampler flowmcmc --seconds 20 --seeds 1
python benchmarks/efficiency.py --show                           print the stored table; --markdown 60 as in the README

ESS against the truth, not against the chain itself: chains / mean over chains of z^2, z the error of a chain's mean in
standard deviations of the target, worst coordinate; and 1 / mean over seeds of z^2 of the overall mean.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "efficiency"
CURVES = Path(__file__).parents[1] / "docs" / "efficiency.png"


def measure(name: str, sampler: str, seed: int, budgets: list[float]) -> list[dict]:
    """One run in this process, judged whenever a budget of CPU seconds is spent; judging is not counted."""
    began = time.perf_counter()
    import numpy as np
    from _record import compile_seconds, known_versions, machine
    from _samplers import CLOUDS, SAMPLERS
    from _table import TARGETS

    compiling = compile_seconds()
    target, left, records = TARGETS[name](), sorted(budgets), []
    sums, squares, modes, counts, blocks = [], [], [], [], []
    first, judging, judging_wall, every = None, 0.0, 0.0, 1
    for index, block in enumerate(SAMPLERS[sampler](target, seed, left[-1])):
        draws = np.asarray(block, float)
        sums.append(draws.sum(axis=1))
        squares.append((draws**2).sum(axis=1))
        counts.append(draws.shape[1])
        if target.modes is not None:
            labels = np.asarray(target.modes(draws.reshape(-1, draws.shape[2])))
            modes.append(np.bincount(labels, minlength=len(target.weights)))
        if index % every == 0:
            blocks.append(draws[:, :: max(1, draws.shape[1] // 200)])
        if len(blocks) > 40:  # r-hat looks at evenly spaced ones, or a fast sampler would fill the memory
            every *= 2
            blocks = blocks[::2]
        spent = time.process_time() - judging
        first = first or spent
        passed = [budget for budget in left if spent > budget]
        if not passed:
            continue
        looking, looking_wall = time.process_time(), time.perf_counter()
        found = judge(target, sums, squares, counts, modes, blocks, draws, is_cloud=sampler in CLOUDS)
        for budget in passed:
            records.append(
                {
                    "target": name,
                    "sampler": sampler,
                    "seed": seed,
                    "budget": budget,
                    "cpu_seconds": spent,
                    "cpu_seconds_to_first_draws": first,
                    "seconds": looking_wall - began - judging_wall,
                    "compile_seconds": sum(compiling),
                    **found,
                    "versions": known_versions(),
                    "machine": machine(),
                }
            )
        left = left[len(passed) :]
        if not left:
            break
        judging += time.process_time() - looking
        judging_wall += time.perf_counter() - looking_wall
    return records


def judge(target, sums, squares, counts, modes, blocks, last, *, is_cloud: bool) -> dict:
    """Errors against the truth, in its standard deviations, from sums over draws; bulk ESS from the `last` block."""
    import numpy as np

    if is_cloud:
        total, count = np.concatenate(sums) / np.array(counts)[:, None], 1
        square = np.concatenate(squares) / np.array(counts)[:, None]
    else:
        total, square, count = np.sum(sums, axis=0), np.sum(squares, axis=0), sum(counts)
    sd = np.sqrt(target.variance)
    z = (total / count - target.mean) / sd
    overall = z.mean(axis=0)
    mean = total.mean(axis=0) / count
    variance = square.mean(axis=0) / count - mean**2
    found = {
        "num_chains": len(total),
        "num_draws": sum(counts) * (1 if is_cloud else len(total)),
        "ess": float(np.min(len(z) / np.mean(z**2, axis=0))) if len(z) > 1 else None,
        "z_overall": overall.tolist(),
        "mean_error": float(np.abs(overall).max()),
        "variance_error": float(np.max(np.abs(variance / target.variance - 1)[target.judged], initial=0.0)),
        "rhat": None,
    }
    if modes:
        weights = np.sum(modes, axis=0) / np.sum(modes)
        found["weight_error"] = float(np.abs(weights - target.weights).max())
    if not is_cloud:
        from arviz_stats.base.array import array_stats

        kept = np.concatenate(blocks, axis=1)
        found["rhat"] = float(np.max(array_stats.rhat(kept, chain_axis=0, draw_axis=1)))
        bulk = float(np.min(array_stats.ess(last, chain_axis=0, draw_axis=1)))
        found["bulk_ess"] = bulk * sum(counts) / last.shape[1]
    return found


def show(rows: list[dict]) -> None:
    """Medians over seeds, a line for each target, sampler and budget."""
    import numpy as np
    from _report import overall, rate

    print(
        f"{'target':<20}{'sampler':<15}{'budget':>7}{'seeds':>6}{'CPU s':>8}{'first s':>8}{'ESS/CPU s':>11}"
        f"{'overall':>9}{'weights':>9}{'variance':>9}{'r-hat':>8}"
    )
    for key in sorted({(r["target"], r["budget"], r["sampler"]) for r in rows}):
        mine = [r for r in rows if (r["target"], r["budget"], r["sampler"]) == key]

        def median(field, mine=mine):
            values = [r[field] for r in mine if r.get(field) is not None]
            return float(np.median(values)) if values else float("nan")

        value = rate(mine)
        per_second = float("nan") if value is None else value
        print(
            f"{key[0]:<20}{key[2]:<15}{key[1]:>7.0f}{len(mine):>6}{median('cpu_seconds'):>8.1f}"
            f"{median('cpu_seconds_to_first_draws'):>8.1f}{per_second:>11.0f}{overall(mine):>9.0f}{median('weight_error'):>9.4f}"
            f"{median('variance_error'):>9.3f}{median('rhat'):>8.3f}"
        )


def main() -> None:
    """Each run in a process of its own, without a compilation cache."""
    from _samplers import SAMPLERS, SIZED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="*", help="names; default all")
    parser.add_argument("--sampler", nargs="*", help=f"of {', '.join(SAMPLERS)}; default all")
    parser.add_argument("--seconds", nargs="*", type=float, default=[20.0, 60.0, 180.0], help="CPU budgets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="also what is stored already")
    parser.add_argument("--show", action="store_true")
    parser.add_argument(
        "--markdown", type=float, metavar="SECONDS", help="print the README's tables for this budget, draw its curves"
    )
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, sampler, seed, *budgets = arguments.one
        print(json.dumps(measure(name, sampler, int(seed), [float(budget) for budget in budgets])))
        return
    if arguments.show or arguments.markdown:
        stored = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
        if arguments.markdown:
            from _report import curves, over_budgets, tables

            print(tables(stored, arguments.markdown), over_budgets(stored), sep="\n\n")
            curves(stored, CURVES)
        else:
            show(stored)
        return
    from _table import TARGETS

    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        for name in arguments.target or TARGETS:
            for sampler in arguments.sampler or SAMPLERS:
                paths = {s: RESULTS / f"{name}-{sampler}-{s:g}-{seed}.json" for s in arguments.seconds}
                missing = [s for s in paths if arguments.again or not paths[s].exists()]
                for budgets in [[s] for s in missing] if sampler in SIZED else [missing] if missing else []:
                    for record in run_alone(name, sampler, seed, budgets):
                        paths[record["budget"]].write_text(json.dumps(record) + "\n")
                        show([record])


def run_alone(name: str, sampler: str, seed: int, budgets: list[float]) -> list[dict]:
    """Records of a process of its own, without a compilation cache; none, with the reason printed, if it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    command = [name, sampler, str(seed), *(f"{budget:g}" for budget in budgets)]
    out = subprocess.run([sys.executable, __file__, "--one", *command], capture_output=True, text=True, env=environment)
    if out.returncode:
        print(f"{' '.join(command)} failed: {(out.stderr.splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return []
    asked = f"--target {name} --sampler {sampler} --seconds {' '.join(command[3:])} --seeds {seed + 1}"
    return [
        record | {"command": f"python benchmarks/efficiency.py {asked}"}
        for record in json.loads(out.stdout.splitlines()[-1])
    ]


if __name__ == "__main__":
    main()
