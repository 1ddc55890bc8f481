"""Fitting a flow to points at hand: closed form first, then gradients until held-out points stop gaining."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flowmcmc.adaptation import training
from flowmcmc.adaptation.adaptive import default_optimizer
from flowmcmc.adaptation.batch import forward_kl
from flowmcmc.adaptation.training import Training
from flowmcmc.base import Array, Flow, PyTree, num_chains
from flowmcmc.ground.arguments import check_counts, check_flow_type, check_optimizer
from flowmcmc.ground.checks import check_flow, check_positions
from flowmcmc.ground.conversions import as_key

__all__ = ["fit_flow"]


def fit_flow(
    rng_key: Array | int,
    flow: Flow,
    positions: PyTree,
    *,
    num_train_steps: int = 2000,
    batch_size: int = 256,
    patience: int = 5,
    optimizer: optax.GradientTransformation | None = None,
) -> PyTree:
    """Maximum likelihood on `positions`, every fifth of them held out; the parameters best there are returned.

    It minimises the forward Kullback-Leibler divergence (Papamakarios et al., arXiv 1912.02762, section 2.3).

    Parameters
    ----------
    rng_key
        A key or an int seed.
    flow
        What to fit.
    positions
        Draws of the target, sample axis first; 10 or more.
    num_train_steps
        At most so many gradient steps, in bursts of 50; 0 keeps the closed-form fit.
    batch_size, patience, optimizer
        As in `adaptive`.

    Returns
    -------
    PyTree
        Parameters of `flow`, like those of ``flow.init``: the ones with the highest mean log density of held-out
        positions.

    Raises
    ------
    ValueError
        If there are too few positions, or they are not finite.
    """
    positions = check_positions(positions)
    size = num_chains(positions)
    if size < 10:
        raise ValueError(f"positions holds {size} points: a fit needs 10 or more.")
    check_flow_type(flow)
    check_flow(flow, jax.tree.map(lambda leaf: leaf[0], positions))
    check_counts({"num_train_steps": num_train_steps}, smallest=0)
    check_counts({"batch_size": batch_size, "patience": patience})
    if optimizer is None:
        optimizer = default_optimizer()
    check_optimizer(optimizer)
    key_order, key_start, key_refit, key_learn = jax.random.split(as_key(rng_key), 4)
    order = np.asarray(jax.random.permutation(key_order, size))
    positions = jax.tree.map(lambda leaf: leaf[order], positions)
    start = jax.jit(lambda positions: training.start(key_start, positions, flow, optimizer, size))(positions)
    state = jax.jit(lambda state: training.refit(key_refit, state, flow, optimizer))(start)
    burst_steps = max(1, min(50, num_train_steps))
    how = Training(flow, optimizer, forward_kl, burst_steps, batch_size, patience)
    nothing = {"pool": (None, None), "logdensity_fn": lambda position: jnp.zeros(())}
    burst = jax.jit(partial(training.learn, **nothing, is_wanted=jnp.array(True), how=how))
    for index in range(num_train_steps // burst_steps):
        state, info = burst(jax.random.fold_in(key_learn, index), state)
        if not bool(info.is_training):
            break
    return state.best
