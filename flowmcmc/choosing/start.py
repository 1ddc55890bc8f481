"""Where a run starts from a broad density: particles moved to the target by tempering."""

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.base import PyTree
from flowmcmc.choosing.calibration import SMC_STEPS
from flowmcmc.choosing.candidates import LOCAL
from flowmcmc.ground.arguments import check_local
from flowmcmc.kernels.scaled import needs_of
from flowmcmc.kernels.tempering import tempered_smc

__all__ = ["find_start"]


def find_start(
    rng_key, logdensity_fn, start, *, num_chains, num_particles, local, progress_bar
) -> tuple[PyTree, PyTree]:
    """Particles from a broad density: `num_chains` of them, spread over all ancestors, and the others. LOCAL moves
    them if `local` is None or needs a flow's parameters, as there is no flow yet."""
    local = LOCAL if local is None else local
    check_local(local)
    local = LOCAL if "params" in needs_of(local) else local
    if num_chains > num_particles:
        raise ValueError(f"num_chains = {num_chains} must not exceed num_particles = {num_particles}.")
    found = tempered_smc(
        rng_key,
        logdensity_fn,
        start,
        num_particles=num_particles,
        local=local,
        num_local_steps=SMC_STEPS,
        progress_bar=progress_bar,
    )
    # resampling has left particles of one ancestor side by side
    chosen = np.arange(num_chains) * num_particles // num_chains
    others = np.setdiff1d(np.arange(num_particles), chosen)
    positions = jax.tree.map(np.asarray, found.positions)  # on the host, where nothing is compiled
    return tuple(jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), positions) for rows in (chosen, others))  # noqa: B023
