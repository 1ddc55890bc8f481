"""Compile and running time of a warm-up and a drawing round at LLVM's optimisation levels, on one core.

python benchmarks/compiling.py
"""

import os
import time

import blackjax
import jax
from _table import TARGETS

import flowmcmc

OPTION = "xla_backend_optimization_level"


def seconds(function, *inputs, level: int) -> tuple[float, float]:
    """To compile, and to run once."""
    lowered = jax.jit(function).lower(*inputs)
    began = time.process_time()
    compiled = lowered.compile(compiler_options={OPTION: level})
    compiling = time.process_time() - began
    jax.block_until_ready(compiled(*inputs))
    began = time.process_time()
    for _ in range(3):
        jax.block_until_ready(compiled(*inputs))
    return compiling, (time.process_time() - began) / 3


def rounds(step):
    """Twenty of them."""
    return lambda key, state: jax.lax.fori_loop(0, 20, lambda i, s: step(jax.random.fold_in(key, i), s)[0], state)


def main() -> None:
    """Print a table."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    key = jax.random.key(0)
    for name, make_flow in (
        ("two_gaussians_2", flowmcmc.gaussian_mixture),
        ("two_gaussians_64", flowmcmc.gaussian_mixture),
        ("two_gaussians_16", flowmcmc.real_nvp),
    ):
        target = TARGETS[name]()
        flow = make_flow(target.start.sample(key))
        positions = jax.vmap(target.start.sample)(jax.random.split(key, 100))
        warming = flowmcmc.adaptive(target.logdensity_fn, blackjax.mala, flow)
        state = jax.jit(warming.init)(positions, key)
        frozen = flowmcmc.freeze(target.logdensity_fn, blackjax.mala, flow, state.tuning)
        for level in (3, 1, 0):
            for what, algorithm, start in (("warm-up", warming, state), ("drawing", frozen, frozen.init(positions))):
                compiling, running = seconds(rounds(algorithm.step), key, start, level=level)
                print(
                    f"{name:<18}{make_flow.__name__:<18}{OPTION} {level}  {what:<8} compile {compiling:6.2f} s  "
                    f"a round {running / 20 * 1e3:7.2f} ms"
                )


if __name__ == "__main__":
    main()
