"""How often each sampler evaluates the density (with or without its gradient): until the first draws, and for a draw.

python benchmarks/evaluations.py                     stored in results/evaluations.json
python benchmarks/evaluations.py --target rings --sampler flowmcmc

What a dear density costs, where `efficiency.py` measures with cheap ones. Counted as the machine does them, evaluations
of chains that wait for others in a vectorised loop included.
"""

import argparse
import json
import sys
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "evaluations.json"
SAMPLERS = ("flowmcmc", "blackjax_smc", "blackjax_chees", "blackjax_meads", "numpyro_nuts")
TARGETS = ("two_gaussians_2", "two_gaussians_64", "rings", "many_well_32", "phi4_chain_64", "logistic_31", "funnel_10")


def measure(name: str, sampler: str) -> dict:
    """Evaluations before the first block of draws and in the second, of one seed."""
    from _samplers import SAMPLERS as FUNCTIONS
    from _table import TARGETS as BY_NAME

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from support.counted import Counted

    target = BY_NAME[name]()
    counted = Counted(target.logdensity_fn)
    blocks = FUNCTIONS[sampler](target._replace(logdensity_fn=counted), 0, 20.0)
    seen = []
    for _ in range(2):
        draws = next(blocks)
        seen.append((counted.total(), draws.shape[0] * draws.shape[1]))
    (first, _), (total, num_draws) = seen
    return {"target": name, "sampler": sampler, "until_first_draws": first, "for_a_draw": (total - first) / num_draws}


def main() -> None:
    """Print and store."""
    from _record import known_versions, machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="*", default=TARGETS)
    parser.add_argument("--sampler", nargs="*", default=SAMPLERS)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.target:
        for sampler in arguments.sampler:
            rows.append(row := measure(name, sampler))
            print(
                f"{name:<18}{sampler:<16}{row['until_first_draws']:>14,} until the first draws"
                f"{row['for_a_draw']:>10.1f} for a draw",
                flush=True,
            )
    record = {"command": "python benchmarks/evaluations.py", "versions": known_versions(), "machine": machine()}
    if (arguments.target, arguments.sampler) == (TARGETS, SAMPLERS):
        RESULT.write_text(json.dumps(record | {"rows": rows}) + "\n")


if __name__ == "__main__":
    main()
