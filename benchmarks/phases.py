"""Where the CPU seconds of a run go: import, compilation, local steps, flow proposals, gradient steps, and the rest:
the search from the wide start, fits of the mixture, the host.

python benchmarks/phases.py          stored in results/phases.json

Each target is a process of its own, without a compilation cache, and its flow is given, so that warm-up has one part.
Parts of a round are differences: the same rounds are timed, compiled beforehand, with and without each of them.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "phases.json"
CASES = (
    ("two_gaussians_2", "mixture"),
    ("two_gaussians_64", "mixture"),
    ("logistic_31", "mixture"),
    ("funnel_10", "layers"),
)
ROUNDS = 100


def measure(name: str, flow_name: str) -> dict:
    """CPU seconds of each part, in this process."""
    import jax
    from _record import compile_seconds
    from _table import TARGETS

    import flowmcmc
    from flowmcmc.choosing.candidates import default_candidates, learns_by_gradients

    importing = time.process_time()
    compiling = compile_seconds()
    target = TARGETS[name]()
    position = target.start.sample(jax.random.key(0))
    candidate = next(one for one in default_candidates(position) if one.name == flow_name)
    flow, local = candidate.flow, candidate.local
    began = time.process_time()
    result = flowmcmc.sample(0, target.logdensity_fn, target.start, flow=flow, progress_bar=False)
    whole, compiled = time.process_time() - began, sum(compiling)

    def seconds_of_a_round(algorithm, start):
        state, _ = flowmcmc.run(0, algorithm, start, ROUNDS, progress_bar=False)
        times = []
        for _ in range(3):
            began = time.process_time()
            state, _ = flowmcmc.run(1, algorithm, state, ROUNDS, progress_bar=False)
            times.append((time.process_time() - began) / ROUNDS)
        return sorted(times)[1]

    positions = result.state.sampler.position
    frozen = partial(flowmcmc.freeze, target.logdensity_fn, local, flow, result.tuning)
    drawing = seconds_of_a_round(frozen(num_local_steps=1, num_flow_steps=5), positions)
    jumping = seconds_of_a_round(frozen(num_local_steps=0, num_flow_steps=5), positions)
    warm, draws = result.settings["num_warmup"], result.settings["num_samples"]
    parts = {
        "import": importing,
        "compile": compiled,
        "local": (warm + draws) * max(0.0, drawing - jumping),
        "flow proposals": (warm + draws) * jumping,
    }
    if learns_by_gradients(flow, position):
        warming = flowmcmc.adaptive(target.logdensity_fn, local, flow, num_local_steps=1, refit_every=100)
        parts["gradient steps"] = warm * max(0.0, seconds_of_a_round(warming, positions) - drawing)
    rest = importing + whole - sum(parts.values())
    return {"target": name, "flow": flow_name, "seconds": importing + whole} | parts | {"search, fits, host": rest}


def main() -> None:
    """One process for each."""
    from _record import run_alone, store

    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:])))
        return
    rows = []
    for case in CASES:
        rows.append(row := run_alone(__file__, *case))
        shown = "  ".join(f"{part} {value:.1f}" for part, value in row.items() if isinstance(value, float))
        print(f"{row['target']:<18}{row['flow']:<9}{shown}", flush=True)
    store(RESULT, __file__, rows)


if __name__ == "__main__":
    main()
