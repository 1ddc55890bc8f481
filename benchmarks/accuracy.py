"""Is `sample`, with its defaults, right? Targets with known truth, five seeds, 100 chains of 1000 draws.

python benchmarks/accuracy.py                          run everything, write benchmarks/results/accuracy.json
python benchmarks/accuracy.py --target rings --seeds 1 one target, printed only
python benchmarks/accuracy.py --show                   print the stored table
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "accuracy.json"


def measure(name: str, seed: int) -> dict:
    """One run in this process: r-hat, errors against the truth, acceptance, seconds with import and compilation."""
    began, cpu = time.perf_counter(), time.process_time()
    import arviz as az
    import jax
    import numpy as np
    from _targets import TARGETS

    import flowmcmc

    compiling = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiling.append(duration) if event.startswith("/jax/core/compile") else None
    )
    target = TARGETS[name]()
    key_start, key_run = jax.random.split(jax.random.key(seed))
    starts = target.starts(key_start, 100)
    result = flowmcmc.sample(key_run, target.logdensity_fn, starts, progress_bar=False)
    compile_seconds = sum(compiling)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    draws = np.swapaxes(result.trace.position, 0, 1).astype(float)
    rhat = float(np.max(az.rhat(result.datatree)["x"].values))
    # errors in the last part of the name's units, with their Monte Carlo errors
    errors = {
        label: (float(f(draws).mean() - truth), float(az.mcse(f(draws))), truth)
        for label, (f, truth) in target.expectations.items()
    }
    row = {
        "target": name,
        "seed": seed,
        "rhat": rhat,
        "min_ess": float(np.min(az.ess(result.datatree)["x"].values)),
        "flow_acceptance": float(result.trace.info.flow_acceptance_rate.mean()),
        "local_acceptance": float(result.trace.info.local_acceptance_rate.mean()),
        "errors": errors,
        "verdict": flowmcmc.summary(result, modes=target.modes).problems,
        "compile_seconds": compile_seconds,
        "warmup_seconds": result.settings["warmup_seconds"],
        "sampling_seconds": result.settings["sampling_seconds"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }
    if target.modes is not None:
        weights = flowmcmc.mode_weights(result, target.modes).weights
        row["weight_error"] = float(
            np.abs(np.pad(weights, (0, len(target.weights) - len(weights))) - target.weights).max()
        )
    return row


def show(rows: list[dict]) -> None:
    """A line for each target: the worst over seeds."""
    print(
        f"{'target':<18}{'seeds':>6}{'r-hat':>8}{'weight err':>12}{'flow acc':>10}{'min ESS':>10}"
        f"{'compile s':>11}{'all s':>7}  worst errors"
    )
    for name in dict.fromkeys(row["target"] for row in rows):
        mine = [row for row in rows if row["target"] == name]
        weight = f"{max(row['weight_error'] for row in mine):.4f}" if "weight_error" in mine[0] else "-"
        errors = []
        for label, (_, _, truth) in mine[0]["errors"].items():
            error, mcse, _ = max((row["errors"][label] for row in mine), key=lambda e: abs(e[0]))
            errors.append(f"{label} {error:+.3g} +- {mcse:.2g} (truth {truth:.3g})")
        print(
            f"{name:<18}{len(mine):>6}{max(row['rhat'] for row in mine):>8.3f}{weight:>12}"
            f"{min(row['flow_acceptance'] for row in mine):>10.3f}{min(row['min_ess'] for row in mine):>10.0f}"
            f"{max(row['compile_seconds'] for row in mine):>11.1f}{max(row['seconds'] for row in mine):>7.1f}"
            f"  {'; '.join(errors)}"
        )
        for problem in sorted({problem for row in mine for problem in row["verdict"]}):
            print(f"{'':<18}  verdict: {problem}")


def main() -> None:
    """Each run in a process of its own, so that compilation is counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="*", help="names; default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("TARGET", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    if arguments.show:
        show(json.loads(RESULTS.read_text())["rows"])
        return
    from _targets import TARGETS

    rows = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    for name in arguments.target or TARGETS:
        for seed in range(arguments.seeds):
            command = [sys.executable, __file__, "--one", name, str(seed)]
            out = subprocess.run(command, capture_output=True, text=True, env=environment)
            if out.returncode:
                sys.exit(f"{name}, seed {seed} failed:\n{out.stderr}")
            rows.append(json.loads(out.stdout.splitlines()[-1]))
        show([row for row in rows if row["target"] == name])
    if not arguments.target:
        versions = {package: version(package) for package in ("flowmcmc", "jax", "blackjax", "flax", "optax", "arviz")}
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        RESULTS.parent.mkdir(exist_ok=True)
        record = {"command": "python benchmarks/accuracy.py", "versions": versions, "machine": machine, "rows": rows}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
