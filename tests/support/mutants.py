"""Mutants: the package broken on purpose in one place each, and the test that must then fail.

    python tests/support/mutants.py            every mutant, about ten minutes on one core
    python tests/support/mutants.py NAME ...   these only; --list shows all

Kernels broken inside a test (`tests/support/helpers.py`) are run by `make test` each time; these here change the
source, in a copy of it, and so cannot be.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutant(NamedTuple):
    """`old` text of a `file` in flowmcmc or ebm becomes `new`; the `tests` (pytest arguments) must fail."""

    file: str
    old: str
    new: str
    tests: str


MUTANTS = {
    "imh forgets the flow's density": Mutant(
        "flowmcmc/kernels/imh.py",
        "log_weight = logdensity - log_prob",
        "log_weight = logdensity",
        "tests/kernels/test_imh.py",
    ),
    "imh accepts NaN": Mutant(
        "flowmcmc/kernels/imh.py",
        "| jnp.isnan(log_weight)",
        "",
        "tests/kernels/test_imh.py tests/kernels/test_exactness.py",
    ),
    "imh keeps the weight of the old place": Mutant(
        "flowmcmc/kernels/imh.py",
        "proposed = IMHState(position, logdensity, log_weight)",
        "proposed = IMHState(position, logdensity, state.log_weight)",
        "tests/kernels/test_imh.py tests/kernels/test_exactness.py",
    ),
    "isir leaves the current state out": Mutant(
        "flowmcmc/kernels/isir.py",
        "index = jax.random.categorical(key_choice, pool.log_weight)",
        "index = 1 + jax.random.categorical(key_choice, pool.log_weight[1:])",
        "tests/kernels/test_isir.py",
    ),
    "neutra forgets the Jacobian": Mutant(
        "flowmcmc/kernels/neutra.py",
        "return logdensity_fn(to_units(position)) + log_det",
        "return logdensity_fn(to_units(position)) + 0 * log_det",
        "tests/kernels/test_neutra.py",
    ),
    "jitter depends on the place": Mutant(
        "flowmcmc/kernels/jittered.py",
        "share * step_size",
        "share * step_size * (1 + jnp.tanh(jax.tree.leaves(state.position)[0].ravel()[0]) / 2)",
        "tests/kernels/test_jittered.py tests/kernels/test_exactness.py",
    ),
    "scaling is not undone": Mutant(
        "flowmcmc/kernels/scaled.py",
        "return LocalState(jax.tree.map(jnp.multiply, kernel_state.position, scale), kernel_state), info",
        "return LocalState(kernel_state.position, kernel_state), info",
        "tests/kernels/test_scaled.py tests/kernels/test_exactness.py",
    ),
    "production adapts its scale to the present ensemble": Mutant(
        "flowmcmc/adaptation/frozen.py",
        "    positions, info, _ = take_round(rng_key, state.position, None, state.tuning, logdensity_fn, steps)\n",
        "    from flowmcmc.kernels.scaled import pooled_scale\n\n"
        "    ones = np.ones(jax.tree.leaves(state.position)[0].shape[0])\n"
        "    now = state.tuning._replace(scale=pooled_scale(state.position, ones))\n"
        "    positions, info, _ = take_round(rng_key, state.position, None, now, logdensity_fn, steps)\n",
        "tests/adaptation/test_rounds.py tests/kernels/test_exactness.py",
    ),
    "one key for all chains": Mutant(
        "flowmcmc/kernels/compose.py",
        "keys = jax.random.split(rng_key, num_chains(state.position))",
        "keys = jnp.stack([rng_key] * num_chains(state.position))",
        "tests/kernels/test_compose.py",
    ),
    "a round without its flow steps": Mutant(
        "flowmcmc/adaptation/rounds.py",
        "jax.lax.fori_loop(0, num_steps, step,",
        "jax.lax.fori_loop(0, 1, step,",
        "tests/adaptation/test_rounds.py tests/adaptation/test_frozen.py",
    ),
    "the density from before the local steps is handed on": Mutant(
        "flowmcmc/adaptation/rounds.py",
        "logdensity = logdensity_fn(state.position)",
        "logdensity = logdensity_fn(position)",
        "tests/adaptation/test_frozen.py tests/kernels/test_exactness.py",
    ),
    "rounds of a stage are at the target": Mutant(
        "flowmcmc/adaptation/frozen.py",
        "jax.lax.cond(beta < 1, between,",
        "jax.lax.cond(beta < 0, between,",
        "tests/choosing/test_temper.py",
    ),
    "weights forget the temperatures before": Mutant(
        "flowmcmc/choosing/particles.py",
        "for b, share in zip(kept.betas, shares)]",
        "for b, share in zip(kept.betas[-1:], shares)]",
        "tests/choosing/test_particles.py tests/choosing/test_temper.py",
    ),
    "copies of a particle are fitted to and held out": Mutant(
        "flowmcmc/choosing/particles.py",
        "is_first = np.isin(ancestor, held_out)",
        "is_first = np.arange(len(chosen)) < is_heldout.sum()",
        "tests/choosing/test_particles.py",
    ),
    "draws are enough though chains disagree": Mutant(
        "flowmcmc/choosing/goal.py",
        "if ess >= min_ess and worst_rhat(trace.position) <= MAX_RHAT:",
        "if ess >= min_ess:",
        "tests/choosing/test_goal.py",
    ),
    "training keeps what is worse": Mutant(
        "flowmcmc/adaptation/training.py",
        "best=select(wins, candidate, state.best),\n            best_loss",
        "best=candidate,\n            best_loss",
        "tests/adaptation/test_training.py",
    ),
    "a step that is not finite is taken": Mutant(
        "flowmcmc/adaptation/training.py",
        "is_good = jnp.isfinite(value) & is_finite(grads) & is_usable(new_params)",
        "is_good = jnp.array(True)",
        "tests/adaptation/test_training.py",
    ),
    "held-out states are trained on": Mutant(
        "flowmcmc/adaptation/training.py", "is_used & ~is_heldout", "is_used", "tests/adaptation/test_training.py"
    ),
    "the optimiser reaches what only fits set": Mutant(
        "flowmcmc/adaptation/training.py",
        "return optimizer if flow.trainable is None else optax.masked(optimizer, flow.trainable(params))",
        "return optimizer",
        "tests/adaptation/test_training.py tests/adaptation/test_guessing.py",
    ),
    "a reservoir forgets at once": Mutant(
        "flowmcmc/adaptation/reservoir.py",
        "(size * uniform).astype(index.dtype)",
        "(0 * uniform).astype(index.dtype)",
        "tests/adaptation/test_reservoir.py tests/adaptation/test_training.py",
    ),
    "a funnel's scales go beyond the digits": Mutant(
        "flowmcmc/flows/funnel.py",
        "DIGITS_SHARE = 0.6",
        "DIGITS_SHARE = 2.0",
        "tests/flows/test_funnel.py tests/flows/test_contract.py",
    ),
    "a mixture's draws come from its first component": Mutant(
        "flowmcmc/flows/mixture.py",
        "k = jnp.argmax(uniform < cumulative / cumulative[-1])",
        "k = 0 * jnp.argmax(uniform < cumulative / cumulative[-1])",
        "tests/flows/test_contract.py",
    ),
    "the defensive part has no weight in the density": Mutant(
        "flowmcmc/flows/mixture.py",
        "    if defensive == 0.0:\n        return log_q\n",
        "    return log_q\n",
        "tests/flows/test_contract.py",
    ),
    "a pushforward forgets the volume": Mutant(
        "flowmcmc/flows/pushforward.py",
        "return position, base.log_prob(fixed(params), z) - log_det",
        "return position, base.log_prob(fixed(params), z)",
        "tests/flows/test_contract.py",
    ),
    "couplings transform what they are fed with": Mutant(
        "flowmcmc/flows/coupling.py",
        "jnp.where(mask, x, y)",
        "y",
        "tests/flows/test_contract.py tests/flows/test_coupling.py",
    ),
    "the bridge ignores autocorrelation": Mutant(
        "flowmcmc/reading/weights.py",
        'return float(cast(float, array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")))',
        "return float(values.size)",
        "tests/reading/test_weights.py tests/reading/test_evidence.py",
    ),
    "a lost mode is no problem": Mutant(
        "flowmcmc/reading/evidence.py",
        "difference > max(allowed, 4 * error)",
        "difference > 1e9",
        "tests/reading/test_evidence.py",
    ),
    "any r-hat will do": Mutant(
        "flowmcmc/reading/convergence.py", "MAX_RHAT = 1.01", "MAX_RHAT = 2.0", "tests/reading"
    ),
    "draws until the best coordinate is good": Mutant(
        "flowmcmc/reading/convergence.py", '"ess", np.min', '"ess", np.max', "tests/more/test_until.py tests/reading"
    ),
    "draws until the smallest r-hat is good": Mutant(
        "flowmcmc/reading/convergence.py", '"rhat", np.max', '"rhat", np.min', "tests/more/test_until.py tests/reading"
    ),
    "rounds are numbered anew in each chunk": Mutant(
        "flowmcmc/running/run.py", "one(rng_key, state, first + index)", "one(rng_key, state, index)", "tests/running"
    ),
    "a chunk is fetched twice after Ctrl-C": Mutant(
        "flowmcmc/running/run.py", "if not (fetched and fetched[-1][0] is chunk):", "if True:", "tests/running"
    ),
    "a whole chunk's room is fetched": Mutant(
        "flowmcmc/running/run.py",
        'if jax.default_backend() == "cpu" or size == room:',
        "if True:",
        "tests/running/test_fetching.py",
    ),
    "programs are kept by identity": Mutant(
        "flowmcmc/ground/arguments.py",
        "    if type(value) is partial:\n",
        "    if False:\n",
        "tests/ground/test_compiling.py",
    ),
    "data are constants of the program": Mutant(
        "flowmcmc/ground/compiling.py",
        "    if isinstance(function, Partial) and all(is_array(leaf) for leaf in jax.tree.leaves(function)):\n"
        "        return function\n",
        "",
        "tests/ground/test_compiling.py",
    ),
    "a dearer flow is taken for nothing": Mutant(
        "flowmcmc/choosing/price.py",
        "trials[best].price > trials[earlier].price",
        "False",
        "tests/choosing/test_price.py",
    ),
    "what the states promise is not tried": Mutant(
        "flowmcmc/choosing/warmup.py",
        "is Outlook.BETTER for other",
        "is None for other",
        "tests/choosing/test_warmup.py",
    ),
    "the user's defaults are overwritten": Mutant(
        "flowmcmc/kernels/scaled.py",
        "name in parameters and parameters[name].default is inspect.Parameter.empty",
        "name in parameters",
        "tests/adaptation/test_guessing.py",
    ),
    "tempering never reaches the target": Mutant(
        "flowmcmc/kernels/tempering.py",
        "is_last = lambdas[-1] > 1 - 1e-6",
        "is_last = lambdas[-1] > 0.5",
        "tests/kernels/test_tempering.py",
    ),
    "step sizes follow the wrong rate": Mutant(
        "flowmcmc/adaptation/step_size.py",
        "dual_averaging_adaptation(target_acceptance_rate)",
        "dual_averaging_adaptation(0.95 * target_acceptance_rate)",
        "tests/adaptation/test_step_size.py",
    ),
    "a checkpoint goes on with another density": Mutant(
        "flowmcmc/running/checkpoint.py",
        "        if different:\n",
        "        if False:\n",
        "tests/running/test_checkpoint.py",
    ),
    "negatives have weight where there is no density": Mutant(
        "ebm/negatives/chains.py",
        "jnp.where(jnp.isfinite(info.logdensity), 0.0, -jnp.inf)",
        "jnp.zeros(info.logdensity.shape)",
        "tests/ebm/test_negatives.py",
    ),
    "moved chains return to other slots": Mutant(
        "ebm/negatives/chains.py",
        "leaf.at[rows].set(new)",
        "leaf.at[rows[::-1]].set(new)",
        "tests/ebm/test_negatives.py",
    ),
    "the gap has the wrong sign": Mutant(
        "ebm/method.py",
        "gap = jnp.mean(on_data) - jnp.sum(weights * on_negatives)",
        "gap = jnp.sum(weights * on_negatives) - jnp.mean(on_data)",
        "tests/ebm/test_train.py",
    ),
    "log Z of contrastive estimation is not learned": Mutant(
        "ebm/objectives/nce.py", "jnp.log(noise_ratio)", "0.0", "tests/ebm/test_objectives.py"
    ),
}


def is_killed(mutant: Mutant) -> bool | None:
    """Whether a test fails on it; None if the text is not there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("flowmcmc", "ebm", "tests", "pyproject.toml", "README.md", "docs"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        path = copy / mutant.file
        if mutant.old not in (text := path.read_text()):
            return None
        path.write_text(text.replace(mutant.old, mutant.new, 1))
        environment = os.environ | {"PYTHONPATH": folder, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "not slow",
            *mutant.tests.split(),
        ]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        return done.returncode == 1


def main() -> int:
    """A line for each; how many live is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(MUTANTS))
        return 0
    living = 0
    for name in arguments.names or MUTANTS:
        found = is_killed(MUTANTS[name])
        living += not found
        print(
            f"{name}: {'the text to change is gone' if found is None else 'killed' if found else 'LIVES'}", flush=True
        )
    return living


if __name__ == "__main__":
    sys.exit(main())
