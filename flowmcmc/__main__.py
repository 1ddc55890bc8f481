"""Without a command: the galaxy demo. ``sample module:function``: your own log density."""

import argparse
import importlib
import inspect
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import blackjax
import jax
import jax.numpy as jnp

from flowmcmc.ground.density import normal
from flowmcmc.plots.report import plot_report
from flowmcmc.reading.summary import Summary, summary
from flowmcmc.result import SampleResult
from flowmcmc.sampling import sample

COUNTS = ("num_chains", "num_warmup", "num_samples")
OF_SAMPLE = {name: inspect.signature(sample).parameters[name].default for name in COUNTS}
OF_DEMO = {"num_chains": 96, "num_warmup": 600, "num_samples": 1000}
COMMON = {"seed": 0, "output": Path("demo_output")}


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, run, write draws, summary, report and a picture; return the exit status."""
    given = vars(parser().parse_args(argv))
    arguments = argparse.Namespace(**(COMMON | given.pop("defaults") | given))
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        arguments.run(arguments)
    except (ValueError, TypeError, OSError) as error:
        print(f"flowmcmc: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The demo, and the same for a density of the user's; options may stand before the command or behind it."""
    # an option that is not given leaves nothing, so that a command does not undo what stood before it
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--seed", type=int, help=f"(default {COMMON['seed']})")
    for name, what in zip(COUNTS, ("", "rounds ", "draws per chain ")):
        default = " in the demo, else ".join(
            "until there are enough" if number is None else str(number)
            for number in dict.fromkeys((OF_DEMO[name], OF_SAMPLE[name]))
        )
        common.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{what}(default {default})")
    common.add_argument("--output", type=Path, help=f"folder (default {COMMON['output']})")
    top = argparse.ArgumentParser(prog="flowmcmc", description=__doc__, parents=[common])
    top.set_defaults(run=run_demo, defaults=OF_DEMO)
    commands = top.add_subparsers(title="commands", metavar="{demo,sample}")
    demo = commands.add_parser(
        "demo", help="the galaxy mixture, NumPyro's NUTS beside flowmcmc (the default)", parents=[common]
    )
    demo.set_defaults(run=run_demo, defaults=OF_DEMO)
    own = commands.add_parser("sample", help="sample your own log density, as flowmcmc.sample does", parents=[common])
    own.set_defaults(run=run_own, defaults=OF_SAMPLE)
    own.add_argument("density", help="module:function, the log density of one position (JAX)")
    start = own.add_mutually_exclusive_group(required=True)
    start.add_argument("--starts", help="module:function (rng_key, num_chains) -> starting positions, chain axis first")
    start.add_argument("--dim", type=int, help="look for the modes from a broad normal of this dimension")
    own.add_argument("--spread", type=float, default=10.0, help="its standard deviation (default %(default)s)")
    return top


def run_demo(arguments) -> None:
    """NUTS and flowmcmc on the galaxy posterior: a table, a picture, both DataTrees."""
    from flowmcmc.examples import galaxies

    print("82 galaxy velocities, a mixture of three normals: six equal modes, one for each ordering of the means.\n")
    nuts, nuts_seconds = galaxies.run_nuts(arguments.seed)
    key_start, key_run = jax.random.split(jax.random.key(arguments.seed))
    # on these bent ridges chains leave a place that the flow knows badly sooner than with the default's one trajectory
    local = {"local": partial(blackjax.hmc, num_integration_steps=8), "num_local_steps": 2}
    starts = galaxies.starting_positions(key_start, arguments.num_chains)
    began = time.perf_counter()
    result = sample(key_run, galaxies.logdensity, starts, **counts(arguments), **local)
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
    if arguments.starts:
        key = jax.random.fold_in(jax.random.key(arguments.seed), 3)  # sample folds in 0 to 2
        starts = load(arguments.starts)(key, arguments.num_chains)
    else:
        starts = normal(jnp.zeros(arguments.dim), scale=arguments.spread)
    result = sample(arguments.seed, density, starts, **counts(arguments))
    found = summary(result)
    print(found)
    write(result, found, str(found), arguments.output)
    plot_chains(result, arguments.output / "chains.png", modes=found.modes)
    print(f"\nwritten to {arguments.output}: chains.png, draws.nc, report.html, summary.txt")


def counts(arguments) -> dict[str, Any]:
    """Chains, rounds and draws."""
    return {name: getattr(arguments, name) for name in COUNTS}


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
