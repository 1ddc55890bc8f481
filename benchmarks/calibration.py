"""Are the errors of `log_evidence` honest? Runs of `sample` on targets with known log Z, one for each of 100 seeds.

python benchmarks/calibration.py                   all targets, stored in results/calibration
python benchmarks/calibration.py --target funnel_10 --seeds 20

Prints mean and standard deviation of z = (estimate - truth) / stated error, which should be near 0 and 1. Each target
is a process of its own, with a compilation cache for its runs: what is measured is the error, not the time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "calibration"
TARGETS = ("two_gaussians_2", "two_gaussians_16", "eight_gaussians", "regression_6", "funnel_10")


def regression():
    """Linear regression with a normal-inverse-gamma prior: log density of (5 coefficients, log variance), log Z."""
    import jax.numpy as jnp
    import numpy as np
    from scipy.special import gammaln

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5))
    y = x @ np.array([1.0, -2.0, 0.5, 0.0, 3.0]) + 0.7 * rng.normal(size=40)
    shape, rate = 3.0, 2.0  # variance ~ inverse gamma(shape, rate), coefficients ~ N(0, 4 variance)
    precision = np.eye(5) / 4 + x.T @ x
    mean = np.linalg.solve(precision, x.T @ y)
    shape_after, rate_after = shape + 20, rate + 0.5 * (y @ y - mean @ precision @ mean)
    log_z = -20 * np.log(2 * np.pi) - 0.5 * (5 * np.log(4) + np.linalg.slogdet(precision)[1])
    log_z += shape * np.log(rate) - shape_after * np.log(rate_after) + gammaln(shape_after) - gammaln(shape)

    def logdensity(position):
        coefficients, log_variance = position[:5], position[5]
        # of data, of coefficients, of the variance with its Jacobian
        squares = jnp.sum((y - x @ coefficients) ** 2) + jnp.sum(coefficients**2) / 4
        normal = -0.5 * squares * jnp.exp(-log_variance) - 22.5 * (jnp.log(2 * jnp.pi) + log_variance)
        prior = shape * jnp.log(rate) - gammaln(shape) - shape * log_variance - rate * jnp.exp(-log_variance)
        return normal - 2.5 * jnp.log(4.0) + prior

    return logdensity, jnp.zeros(6), 5.0, float(log_z)


def known(name: str):
    """Log density, a wide start and log Z."""
    import numpy as np
    from _table import TARGETS

    import flowmcmc

    if name == "regression_6":
        logdensity, position, scale, log_z = regression()
        return logdensity, flowmcmc.normal(position, scale=scale), log_z
    target = TARGETS[name]()
    dim = len(target.mean)
    log_z = {
        "two_gaussians": 0.5 * dim * np.log(2 * np.pi),
        "eight_gaussians": np.log(8 * 2 * np.pi * 0.15**2),
        "funnel": 0.5 * dim * np.log(2 * np.pi) + np.log(3),
    }
    return target.logdensity_fn, target.start, float(log_z[name.rstrip("_0123456789")])


def measure(name: str, seeds: range) -> None:
    """A line of JSON for each seed."""
    import jax

    import flowmcmc

    logdensity, start, truth = known(name)
    for seed in seeds:
        jax.clear_caches()  # each run compiles functions of its own, which would fill the memory
        began = time.process_time()
        result = flowmcmc.sample(seed, logdensity, start, progress_bar=False)
        found = flowmcmc.log_evidence(result, rng_key=seed)
        row = {
            "seed": seed,
            "flow": result.settings["flow"],
            "log_z": found.log_z,
            "error": found.error,
            "truth": truth,
            "z": (found.log_z - truth) / found.error,
            "problems": found.problems,
            "cpu_seconds": time.process_time() - began,
        }
        print(json.dumps(row), flush=True)
        print(f"{name} {seed}: z {row['z']:+.2f}, {row['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True)


def main() -> None:
    """Run, print, store."""
    import os

    import numpy as np
    from _record import known_versions, machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="*", default=TARGETS)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return measure(arguments.one, range(arguments.seeds))
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in arguments.target:
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
            command = [sys.executable, __file__, "--one", name, "--seeds", str(arguments.seeds)]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
        rows = [json.loads(line) for line in out.stdout.splitlines()]
        z = np.array([row["z"] for row in rows])
        refused = sum(bool(row["problems"]) for row in rows)
        print(
            f"{name:<18} {len(z)} seeds: z {z.mean():+.2f} +- {z.std():.2f}, largest {np.abs(z).max():.1f}; error "
            f"{np.median([row['error'] for row in rows]):.4f} nats; {refused} refused",
            flush=True,
        )
        command = f"python benchmarks/calibration.py --target {name} --seeds {arguments.seeds}"
        record = {"command": command, "versions": known_versions(), "machine": machine(), "rows": rows}
        (RESULTS / f"{name}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
