"""Without a command: the galaxy demo. ``sample module:function``: your own log density."""

import argparse
import importlib
import sys
import time
from functools import partial
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp

from flowmcmc.density import normal
from flowmcmc.report import plot_report
from flowmcmc.result import SampleResult
from flowmcmc.sample import sample
from flowmcmc.summary import Summary, summary


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, run, write draws, summary, report and a picture; return the exit status."""
    arguments = parser().parse_args(argv)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        arguments.run(arguments)
    except (ValueError, TypeError, OSError) as error:
        print(f"flowmcmc: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The demo, and the same for a density of the user's."""
    top = argparse.ArgumentParser(prog="flowmcmc", description=__doc__)
    commands = top.add_subparsers(title="commands", metavar="{demo,sample}")
    demo = commands.add_parser("demo", help="the galaxy mixture, NumPyro's NUTS beside flowmcmc (the default)")
    own = commands.add_parser("sample", help="sample your own log density")
    own.add_argument("density", help="module:function, the log density of one position (JAX)")
    start = own.add_mutually_exclusive_group(required=True)
    start.add_argument("--starts", help="module:function (rng_key, num_chains) -> starting positions, chain axis first")
    start.add_argument("--dim", type=int, help="look for the modes from a broad normal of this dimension")
    own.add_argument("--spread", type=float, default=10.0, help="its standard deviation (default %(default)s)")
    for command, run in ((top, run_demo), (demo, run_demo), (own, run_own)):
        command.set_defaults(run=run)
        command.add_argument("--seed", type=int, default=0, help="(default %(default)s)")
        command.add_argument("--num-chains", type=int, default=96, help="(default %(default)s)")
        command.add_argument("--num-warmup", type=int, default=600, help="rounds (default %(default)s)")
        command.add_argument("--num-samples", type=int, default=1000, help="draws per chain (default %(default)s)")
        command.add_argument("--output", type=Path, default=Path("demo_output"), help="folder (default %(default)s)")
    return top


def run_demo(arguments) -> None:
    """NUTS and flowmcmc on the galaxy posterior: a table, a picture, both DataTrees."""
    from flowmcmc.examples import galaxies

    print("82 galaxy velocities, a mixture of three normals: six equal modes, one for each ordering of the means.\n")
    nuts, nuts_seconds = galaxies.run_nuts(arguments.seed)
    key_start, key_run = jax.random.split(jax.random.key(arguments.seed))
    starts = galaxies.starting_positions(key_start, arguments.num_chains)
    began = time.perf_counter()
    result = run_sample(key_run, galaxies.logdensity, starts, arguments)
    seconds = time.perf_counter() - began
    found = summary(result, modes=lambda _: galaxies.labelling(result.datatree.posterior["mu"].values).ravel())
    table = galaxies.table({"NUTS": (nuts, nuts_seconds), "flowmcmc": (result.datatree, seconds)})
    print(f"posterior mass of each ordering of the means (truth: 1/6 = 0.167), seconds with compilation\n{table}\n")
    print(f"flowmcmc's verdict: {found.verdict}\n")
    nuts.to_netcdf(arguments.output / "nuts.nc")
    write(result, found, f"{table}\n\n{found}", arguments.output)
    galaxies.plot(nuts, result.datatree, arguments.output / "galaxies.png")
    print(f"written to {arguments.output}: galaxies.png, draws.nc, nuts.nc, report.html, summary.txt")


def run_own(arguments) -> None:
    """Sample the user's density and say whether to trust it."""
    from flowmcmc.plots import plot_chains

    density = load(arguments.density)
    key_start, key_run = jax.random.split(jax.random.key(arguments.seed))
    if arguments.starts:
        starts = load(arguments.starts)(key_start, arguments.num_chains)
    else:
        starts = normal(jnp.zeros(arguments.dim), scale=arguments.spread)
    result = run_sample(key_run, density, starts, arguments)
    found = summary(result)
    print(found)
    write(result, found, str(found), arguments.output)
    plot_chains(result, arguments.output / "chains.png", modes=found.modes)
    print(f"\nwritten to {arguments.output}: chains.png, draws.nc, report.html, summary.txt")


def run_sample(rng_key, logdensity_fn, starts, arguments) -> SampleResult:
    """`sample` with the options of the command line, its local steps short HMC trajectories."""
    return sample(
        rng_key,
        logdensity_fn,
        starts,
        num_samples=arguments.num_samples,
        num_warmup=arguments.num_warmup,
        num_chains=arguments.num_chains,
        # on bent ridges chains leave a place that the flow knows badly sooner than with MALA
        local=partial(blackjax.hmc, num_integration_steps=8),
        num_local_steps=2,
    )


def write(result: SampleResult, found: Summary, text: str, folder: Path) -> None:
    """``draws.nc`` (read it with ``arviz.from_netcdf``), ``summary.txt`` and ``report.html``."""
    result.datatree.to_netcdf(folder / "draws.nc")
    (folder / "summary.txt").write_text(text + "\n")
    plot_report(result, folder / "report.html", summary=found)


def load(name: str):
    """The object behind ``module:function``, the current folder included."""
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"{name!r} should read module:function, for example mymodel:logdensity.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load {name!r}: {error}.") from error


if __name__ == "__main__":
    sys.exit(main())
