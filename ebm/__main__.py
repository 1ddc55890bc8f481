"""Run the experiments of arXiv 2306.00684 and read their results."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

STORED = Path(__file__).parent.parent / "benchmarks" / "results" / "ebm"


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and run; return the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError) as error:
        print(f"ebm: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The command line: one run, all runs, or the table and figures of stored runs."""
    from ebm.experiments.methods import METHODS
    from ebm.experiments.settings import EXPERIMENTS

    described = "\n".join(f"  {name:<12} {(build.__doc__ or '').splitlines()[0]}" for name, build in METHODS.items())
    top = argparse.ArgumentParser(
        prog="ebm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"experiments:\n  {' '.join(EXPERIMENTS)}\n\nmethods:\n{described}",
    )
    top.add_argument(
        "experiment",
        choices=[*EXPERIMENTS, "all", "report"],
        metavar="EXPERIMENT",
        help="one of those below; all: every run that has no result yet; report: table and figures",
    )
    top.add_argument("--method", choices=METHODS, default="flow", metavar="METHOD", help="(default %(default)s)")
    top.add_argument("--seed", type=int, default=0, help="of data, training and evaluation (default %(default)s)")
    top.add_argument("--num-steps", type=int, help="updates; default: as many as fit into the experiment's CPU seconds")
    top.add_argument("--seconds", type=float, help="CPU seconds for training instead of the experiment's own")
    top.add_argument("--num-seeds", type=int, default=5, help="for all (default %(default)s)")
    top.add_argument("--output", type=Path, default=Path("ebm_output"), help="folder (default %(default)s)")
    top.set_defaults(run=dispatch)
    return top


def dispatch(arguments) -> int:
    """Make one run, make all runs, or report on stored runs."""
    if arguments.experiment == "report":
        return report(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    return run_all(arguments) if arguments.experiment == "all" else run_one(arguments)


def run_one(arguments) -> int:
    """Train, measure, write ``EXPERIMENT-METHOD-SEED.json`` and print the outcome."""
    from ebm.experiments.measure import measure
    from ebm.experiments.report import outcome

    record = measure(
        arguments.experiment,
        arguments.method,
        arguments.seed,
        num_steps=arguments.num_steps,
        seconds=arguments.seconds,
    )
    path = arguments.output / f"{arguments.experiment}-{arguments.method}-{arguments.seed}.json"
    path.write_text(json.dumps(record) + "\n")
    print(outcome(record))
    print(f"\nwritten to {path}")
    return 0


def run_all(arguments) -> int:
    """Make every run that has no result yet, each in a process of its own on one core; it can be interrupted."""
    from ebm.experiments.report import planned_runs

    todo = [
        run
        for run in planned_runs(arguments.num_seeds)
        if not (arguments.output / "{}-{}-{}.json".format(*run)).exists()
    ]
    for index, (name, method, seed) in enumerate(todo):
        print(f"[{index + 1}/{len(todo)}] {name} {method} seed {seed}", flush=True)
        command = [sys.executable, "-m", "ebm", name, "--method", method, "--seed", str(seed)]
        environment = os.environ | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        status = subprocess.run([*command, "--output", str(arguments.output)], env=environment).returncode
        if status:
            print(f"ebm: {' '.join(command[1:])} failed with status {status}", file=sys.stderr)
            return status
    return report(arguments)


def report(arguments) -> int:
    """Write the table that compares stored runs with the paper, and the figures."""
    from ebm.experiments.report import figures, markdown_table, read_records

    folder = arguments.output if any(arguments.output.glob("*.json")) else STORED
    records = read_records(folder)
    if not records:
        raise ValueError(f"no results in {arguments.output}: run `python -m ebm all` first, or name another --output.")
    text = markdown_table(records)
    print(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "table.md").write_text(text + "\n")
    for path in figures(records, arguments.output):
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
