"""What halving or doubling each number of ``flowmcmc/choosing/calibration.py`` does to default runs.

python benchmarks/policy.py              stored in results/policy.json; about half an hour on one core
python benchmarks/policy.py --show       the stored table, numbers that change nothing left out

Each target is a process of its own, which runs with the numbers as they are and then with one of them changed at a
time; equal programs are compiled once. A run is judged by the flow it takes, its rounds of warm-up, effective draws for
each flow proposal (acceptance r counts r / (2 - r)), and the longest wait of a chain in 200 rounds.
"""

import argparse
import json
import math
import sys
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "policy.json"
TARGETS = {
    "two_gaussians_2": "mixture of few modes",
    "two_gaussians_16": "the same, d = 16",
    "student_10": "heavy tails",
    "laplace_20": "product, one mode",
    "wells_8": "product, 16 modes",
    "funnel_5": "a neck",
    "rosenbrock_4": "ridges",
    "banana_10": "one ridge",
}


def numbers() -> dict[str, float]:
    """The numbers by name, in the order of the file."""
    from flowmcmc.choosing import calibration

    return {name: value for name, value in vars(calibration).items() if name.isupper()}


def changed(name: str, factor: float, value: float):
    """`value` times `factor`: a whole number if it was one, a share below one."""
    if isinstance(value, int):
        return max(1, round(value * factor))
    return (
        min(value * factor, 0.5 * (1 + value)) if name in ("LAST_FIT", "ENOUGH", "BLOCK", "RIDGE") else value * factor
    )


def put(name: str, value) -> None:
    """Give the number that value wherever it is used."""
    for module in [module for key, module in sys.modules.items() if key.startswith("flowmcmc.choosing")]:
        if hasattr(module, name):
            setattr(module, name, value)


def judge(target, seed: int) -> dict:
    """One default run, with half of the chains and particles."""
    import numpy as np

    import flowmcmc
    from flowmcmc.reading.waits import longest_run

    options = {"num_chains": 50, "num_particles": 1000, "num_samples": 200, "progress_bar": False}
    result = flowmcmc.sample(seed, target.logdensity_fn, target.start, **options)
    info = result.trace.info
    rate = float(np.nan_to_num(info.flow_acceptance_rate).mean())
    return {
        "flow": result.settings["flow"],
        "rounds": len(result.warmup.info.step_size),
        "efficiency": round(rate / (2 - rate), 3),
        "wait": max(map(longest_run, (info.num_flow_accepted == 0).T)),
    }


def measure(name: str, seed: int) -> list[dict]:
    """All runs on one target, in this process."""
    from _fields import many_well
    from _table import TARGETS as KNOWN
    from _targets import funnel, rosenbrock

    small = {"wells_8": lambda: many_well(8), "funnel_5": lambda: funnel(5), "rosenbrock_4": lambda: rosenbrock(4)}
    target = (small | KNOWN)[name]()
    rows = [{"target": name, "number": None, "factor": 1.0} | judge(target, seed)]
    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    for number, value in numbers().items():
        for factor in (0.5, 2.0):
            put(number, changed(number, factor, value))
            row = {"target": name, "number": number, "factor": factor} | judge(target, seed)
            if any(row[key] != rows[0][key] for key in ("flow", "rounds", "efficiency", "wait")):
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
            put(number, value)
    return rows


def show(rows: list[dict]) -> None:
    """A line for each number and factor that changes something, the targets that it changes behind it."""
    before = {row["target"]: row for row in rows if row["number"] is None}
    for number, value in numbers().items():
        for factor in (0.5, 2.0):
            found = [row for row in rows if row["number"] == number and row["factor"] == factor]
            told = "; ".join(
                f"{row['target']}: "
                + ", ".join(
                    f"{key} {before[row['target']][key]} -> {row[key]}"
                    for key in ("flow", "rounds", "efficiency", "wait")
                    if row[key] != before[row["target"]][key]
                )
                for row in found
            )
            ratios = [row["efficiency"] / max(before[row["target"]]["efficiency"], 1e-3) for row in found]
            mean = math.exp(sum(math.log(max(ratio, 1e-3)) for ratio in ratios) / len(before)) if found else 1.0
            print(f"{number:<16}{value:>8} x {factor}: efficiency x {mean:.3f} over all; {told or 'no run changes'}")


def main() -> None:
    """One process for each target."""
    from _record import store

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="*", help="names; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.seed)))
        return
    if not arguments.show:
        from _record import run_alone

        known = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
        for name in arguments.target or TARGETS:
            fresh = run_alone(__file__, "--one", name, "--seed", arguments.seed)
            known = [row for row in known if row["target"] != name] + fresh
            store(RESULT, __file__, known)
    show(json.loads(RESULT.read_text())["rows"])


if __name__ == "__main__":
    main()
