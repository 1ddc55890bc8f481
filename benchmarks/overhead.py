"""What a production round costs beside its bare parts, and how the cost grows with chains and draws.

python benchmarks/overhead.py         stored in results/overhead.json

The parts, each compiled alone and run on the same chains: flow draws with their log density, the target's density on
them, and the local kernel. A round has to do these and decide; the ratio says what else it spends.
"""

import statistics
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from _record import store
from _targets import two_gaussians

import flowmcmc
from flowmcmc.choosing.candidates import candidate_of
from flowmcmc.ground.compiling import compiler_options
from flowmcmc.kernels.scaled import scaled_kernel

RESULT = Path(__file__).parent / "results" / "overhead.json"
CHAINS = (10, 100, 1000, 10_000)
LOCAL_STEPS, FLOW_STEPS = 1, 5  # the defaults


def seconds_of(functions: dict, rounds: int, repeats: int = 7) -> dict[str, float]:
    """Median seconds a round of each function, taken in turn so that a slow spell of the machine falls on all."""
    for function in functions.values():
        jax.block_until_ready(function(jax.random.key(0)))
    times = {name: [] for name in functions}
    for repeat in range(repeats):
        for name, function in functions.items():
            began = time.process_time()
            jax.block_until_ready(function(jax.random.key(repeat)))
            times[name].append((time.process_time() - began) / rounds)
    return {name: statistics.median(values) for name, values in times.items()}


def over_rounds(one, rounds: int):
    """``one(key, carry) -> carry`` for so many rounds, compiled as the library compiles its own."""
    options = compiler_options()

    def make(carry):
        @partial(jax.jit, compiler_options=options)
        def all_rounds(key):
            return jax.lax.fori_loop(0, rounds, lambda i, c: one(jax.random.fold_in(key, i), c), carry)

        return all_rounds

    return make


def measure(flow_name: str, dim: int, chains: int, rounds: int) -> dict:
    """CPU seconds a round and a chain, of the round and of its parts."""
    target = two_gaussians(dim)
    positions = jax.vmap(target.start.sample)(jax.random.split(jax.random.key(1), chains)) / 4
    flows = {
        "mixture": lambda: flowmcmc.gaussian_mixture(positions[0], num_components=2),
        "layers": lambda: flowmcmc.real_nvp(positions[0]),
    }
    flow = flows[flow_name]()
    params = flow.init(jax.random.key(2), positions[0])
    tuning = flowmcmc.Tuning(params, jnp.array(0.5), jnp.ones(dim))
    local_constructor = candidate_of(flow).local
    frozen = flowmcmc.freeze(
        target.logdensity_fn, local_constructor, flow, tuning, num_local_steps=LOCAL_STEPS, num_flow_steps=FLOW_STEPS
    )
    kernel = scaled_kernel(
        local_constructor, target.logdensity_fn, tuning.step_size, tuning.scale, params=tuning.params
    )

    def whole(key, state):
        return frozen.step(key, state)[0]

    def local(key, positions):
        def chain(key, position):
            keys = jax.random.split(key, LOCAL_STEPS)
            return jax.lax.scan(lambda s, k: (kernel.step(k, s)[0], None), kernel.init(position), keys)[0].position

        return jax.vmap(chain)(jax.random.split(key, chains), positions)

    def draws(key, carry):
        def chain(key):
            draw = lambda total, k: (total + flow.sample_and_log_prob(k, params)[1], None)
            return jax.lax.scan(draw, jnp.zeros(()), jax.random.split(key, FLOW_STEPS))[0]

        return carry + jax.vmap(chain)(jax.random.split(key, chains))

    def density(key, positions):
        # each evaluation depends on the one before, or the compiler would take it out of the loop
        def chain(position):
            again = lambda x, _: (x + 1e-9 * target.logdensity_fn(x), None)
            return jax.lax.scan(again, position, None, FLOW_STEPS)[0]

        return jax.vmap(chain)(positions)

    times = seconds_of(
        {
            "round": over_rounds(whole, rounds)(frozen.init(positions)),
            "local": over_rounds(local, rounds)(positions),
            "flow": over_rounds(draws, rounds)(jnp.zeros(chains)),
            "target": over_rounds(density, rounds)(positions),
        },
        rounds,
    )
    parts = times["local"] + times["flow"] + times["target"]
    return {
        "flow": flow_name,
        "dim": dim,
        "chains": chains,
        "microseconds": {name: 1e6 * value / chains for name, value in times.items()},
        "ratio": times["round"] / parts,
    }


def main() -> None:
    """The table."""
    rows = []
    for flow_name, dim in (("mixture", 2), ("mixture", 16), ("layers", 16)):
        for chains in CHAINS:
            row = measure(flow_name, dim, chains, rounds=max(2, 20_000 // chains))
            rows.append(row)
            shown = "  ".join(f"{name} {value:8.3f}" for name, value in row["microseconds"].items())
            print(
                f"{flow_name:8} d={dim:<3} {chains:6} chains: us a chain: {shown}   ratio {row['ratio']:.2f}",
                flush=True,
            )
    store(RESULT, __file__, rows)


if __name__ == "__main__":
    main()
