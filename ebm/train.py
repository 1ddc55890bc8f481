"""The one training loop: a BlackJAX-style ``init``/``step`` pair, driven by `flowmcmc.run` like any sampler.

One step: take the next batch of a shuffled epoch, follow the gradient of the method's loss, average theta. An epoch
sees every point once, so that the averaged theta feels little of the batches' own mode weights. Nothing that depends
on theta is cached across an update. An update that is not finite is skipped and counted.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ebm.method import Method, MethodInfo
from ebm.model import Model
from flowmcmc.base import SamplingAlgorithm
from flowmcmc.ground.arguments import check_counts

__all__ = ["TrainInfo", "TrainState", "default_optimizer", "trainer"]

Array = jax.Array


class TrainState(NamedTuple):
    """Updates done, the parameters in training and their running average, what the method keeps, the data, and the
    order of its rows in this epoch."""

    step: Array
    theta: Any
    average: Any
    extra: Any
    opt_state: Any
    method: Any
    data: Any
    order: Array


class TrainInfo(NamedTuple):
    """Health of one update: `loss` (the energy gap for maximum likelihood), norm of the gradient, whether the update
    was skipped because something was not finite, and what the method reports."""

    loss: Array
    gradient_norm: Array
    is_skipped: Array
    method: MethodInfo


def default_optimizer(num_steps: int, learning_rate: float = 3e-3) -> optax.GradientTransformation:
    """Adam, clipped to norm 10, the rate held for half of `num_steps` and then lowered to a hundredth on a cosine.

    Adam: Kingma and Ba, arXiv 1412.6980.

    Parameters
    ----------
    num_steps
        Updates of the whole training.
    learning_rate
        Of the first half.

    Returns
    -------
    optax.GradientTransformation
        An ``init(params)`` and ``update(grads, state, params)`` pair for `trainer` and `fit`.

    Raises
    ------
    ValueError
        If `num_steps` or `learning_rate` is not positive.
    """
    check_counts({"num_steps": num_steps})
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be positive, got {learning_rate}.")
    half = max(1, num_steps // 2)
    schedule = optax.join_schedules(
        [optax.constant_schedule(learning_rate), optax.cosine_decay_schedule(learning_rate, half, 0.01)], [half]
    )
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))


def trainer(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int = 256,
    average_decay: float = 0.998,
) -> SamplingAlgorithm:
    """Training as a BlackJAX-style algorithm whose state holds the data, the parameters and the optimiser.

    Parameters
    ----------
    model, method
        What is trained, and how.
    optimizer
        Any optax optimiser, for theta and for what the method learns beside it.
    batch_size
        Data points in a batch (all of them if there are fewer). Epochs are shuffled; what is left over at the end of
        one is left out.
    average_decay
        Of the exponential average of theta (a plain mean at first); 0 keeps no average.

    Returns
    -------
    SamplingAlgorithm
        ``init(data, rng_key) -> TrainState`` and ``step(rng_key, state) -> (TrainState, TrainInfo)``, for
        `flowmcmc.run`.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    check_counts({"batch_size": batch_size})
    if not 0 <= average_decay < 1:
        raise ValueError(f"average_decay must lie in [0, 1), got {average_decay}.")

    def init(data, rng_key):
        key_theta, key_method = jax.random.split(rng_key)
        theta = model.init(key_theta)
        extra, method_state = method.init(key_method, theta, data)
        opt_state = optimizer.init((theta, extra))
        order = jnp.arange(jax.tree.leaves(data)[0].shape[0])
        return TrainState(jnp.array(0), theta, theta, extra, opt_state, method_state, data, order)

    def step(rng_key, state):
        key_order, key_loss = jax.random.split(rng_key)
        size = min(batch_size, state.order.shape[0])
        place = state.step % (state.order.shape[0] // size)
        order = jax.lax.cond(place == 0, lambda: jax.random.permutation(key_order, state.order), lambda: state.order)
        rows = jax.lax.dynamic_slice(order, (place * size,), (size,))
        batch = jax.tree.map(lambda leaf: leaf[rows], state.data)

        def objective(learned):
            return method.loss(key_loss, *learned, state.method, batch)

        learned = (state.theta, state.extra)
        (loss, (method_state, info)), grads = jax.value_and_grad(objective, has_aux=True)(learned)
        norm = optax.tree.norm(grads)
        is_good = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, learned)
        new = (optax.apply_updates(learned, updates), opt_state)
        (theta, extra), opt_state = jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, (learned, state.opt_state))
        weight = jnp.maximum(1 - average_decay, 1 / (state.step + 1.0))
        average = optax.incremental_update(theta, state.average, weight)
        new_state = TrainState(state.step + 1, theta, average, extra, opt_state, method_state, state.data, order)
        return new_state, TrainInfo(loss, norm, ~is_good, info)

    return SamplingAlgorithm(init, step)
