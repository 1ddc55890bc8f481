"""Where a run starts from a density: the search that suits the number of coordinates."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.adaptation.training import HOLD_OUT
from flowmcmc.base import Array, LocalKernel
from flowmcmc.choosing.calibration import SMC_STEPS
from flowmcmc.choosing.candidates import LOCAL, Candidate
from flowmcmc.choosing.particles import Found, raise_if_spent, split
from flowmcmc.choosing.warmup import WarmUpPlan
from flowmcmc.ground.arguments import check_local
from flowmcmc.ground.checks import check_start
from flowmcmc.ground.compiling import output_shape
from flowmcmc.kernels.scaled import needs_of

__all__ = ["find_start"]


def find_start(
    rng_key: Array,
    plan: WarmUpPlan,
    candidates: Sequence[Candidate],
    start,
    sizes: tuple[int, int],
    local: LocalKernel | None,
) -> Found:
    """Particles of the target, from draws of `start`.

    Proposals fitted to the particles of a stage need more of them than a covariance has numbers. In more dimensions
    than that local steps alone move them: tempered SMC.

    Parameters
    ----------
    rng_key
        One key.
    plan, candidates
        Of the run, and the flows it may take.
    start
        A density with ``sample`` and ``log_prob``.
    sizes
        Numbers of chains and of particles.
    local
        The user's kernel, or None. LOCAL moves the particles of SMC if it needs a flow's parameters.
    """
    # runs from given positions need neither
    from flowmcmc.choosing.temper import temper
    from flowmcmc.kernels.tempering import tempered_smc

    num_chains, num_particles = sizes
    logdensity_fn = plan.make_frozen(candidates[0]).step.args[0]
    check_start(rng_key, logdensity_fn, start)
    dim = sum(leaf.size for leaf in jax.tree.leaves(output_shape(start.sample, rng_key)))
    if num_particles * (1 - 1 / HOLD_OUT) >= dim * (dim + 3) / 2:
        return temper(rng_key, candidates, plan, start, sizes)
    local = LOCAL if local is None or "params" in needs_of(local) else local
    check_local(local)
    found = tempered_smc(
        rng_key,
        logdensity_fn,
        start,
        num_particles=num_particles,
        local=local,
        num_local_steps=SMC_STEPS,
        progress_bar=plan.progress_bar,
    )
    plan.budget.spend(found.num_evaluations)
    raise_if_spent(plan.budget, found.tempering[-1])
    # resampling has left particles of one ancestor side by side
    chosen = np.arange(num_chains) * num_particles // num_chains
    order = np.concatenate([chosen, np.setdiff1d(np.arange(num_particles), chosen)])
    particles = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[order]), found.positions)
    return Found(*split(particles, num_chains), found.log_z, found.tempering, found.num_evaluations)
