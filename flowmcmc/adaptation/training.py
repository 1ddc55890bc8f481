r"""Training the flow on the chains as they run: what to keep is decided on chains it was not trained on.

The states of every fifth chain (every fifth stretch of rounds if there are fewer than five chains) are held out,
another fifth after 1, 3, 7, 15, ... rounds, so that what only one chain has seen is learned in the end. After each
burst of gradient steps the new parameters and the best so far are compared on the same held-out states; only what is
better there is used for proposals. When nothing has improved for `patience` bursts, training rests until the next
refit. At rounds 0, 1, 3, 7, 15, ... of `adaptive`, ``flow.fit`` builds a candidate that is kept if it wins.
"""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from flowmcmc.adaptation import reservoir
from flowmcmc.adaptation.batch import Batch, Loss
from flowmcmc.adaptation.reservoir import Reservoir
from flowmcmc.base import Array, Flow, LogDensity, PyTree
from flowmcmc.ground.trees import stop_gradients

__all__ = [
    "Training",
    "TrainingInfo",
    "TrainingState",
    "is_refit_round",
    "is_trained",
    "learn",
    "refit",
    "remember",
    "remember_rounds",
    "start",
]

HOLD_OUT = 5
AVERAGING = 0.98  # of the parameters over gradient steps: their noise alone would cost acceptance
MIN_LOSS_GAIN = 0.002  # nats; smaller improvements are kept but do not prolong training


class Training(NamedTuple):
    """How `flow` is trained: `optimizer` and `loss`, gradient steps in a burst and states in each, and how many bursts
    without improvement end it."""

    flow: Flow
    optimizer: optax.GradientTransformation
    loss: Loss
    num_train_steps: int
    batch_size: int
    patience: int


class TrainingState(NamedTuple):
    """`params` in training and their running `average`, the `best` of both on held-out states and bursts since
    it improved, optimiser, memories."""

    params: PyTree
    average: PyTree
    best: PyTree
    best_loss: Array
    num_stale: Array
    opt_state: PyTree
    seen: Reservoir
    heldout: Reservoir


class TrainingInfo(NamedTuple):
    """`loss` on the last batch (NaN while resting), `heldout_loss` of the best parameters (-log q, nats), gradient
    steps skipped because something was not finite, and whether training was active."""

    loss: Array
    heldout_loss: Array
    num_skipped: Array
    is_training: Array


def start(
    rng_key: Array, positions: PyTree, flow: Flow, optimizer: optax.GradientTransformation, history_size: int
) -> TrainingState:
    """Initial state, the starting positions remembered; the first round fits the flow to them."""
    key_init, key_remember = jax.random.split(rng_key)
    position = jax.tree.map(lambda leaf: leaf[0], positions)
    params = flow.init(key_init, position)
    seen = reservoir.create(history_size, position)
    heldout = reservoir.create(max(1, history_size // (HOLD_OUT - 1)), position)
    opt_state = masked_optimizer(optimizer, flow, params).init(params)
    infinity = jnp.array(jnp.inf, jax.tree.leaves(positions)[0].dtype)
    state = TrainingState(params, params, params, infinity, jnp.array(0), opt_state, seen, heldout)
    return remember(key_remember, state, positions, jnp.array(0))


def remember(rng_key: Array, state: TrainingState, positions: PyTree, round: Array) -> TrainingState:
    """Put this round's states into the memory they belong to."""
    return remember_rounds(rng_key, state, jax.tree.map(lambda leaf: leaf[None], positions), round, 1)


def remember_rounds(
    rng_key: Array, state: TrainingState, positions: PyTree, first: Array, num_rounds: Array | int
) -> TrainingState:
    """The same for `num_rounds` rounds from `first` on; `positions` have an axis for them first."""
    shape = jax.tree.leaves(positions)[0].shape[:2]
    index = jnp.arange(shape[0])[:, None]
    rotation = jnp.log2(first + index + 1.0).astype(jnp.int32)
    # with few chains stretches of four rounds take the place of chains
    group = jnp.arange(shape[1]) + rotation if shape[1] >= HOLD_OUT else jnp.broadcast_to((first + index) // 4, shape)
    is_heldout = (group % HOLD_OUT == HOLD_OUT - 1).ravel()
    is_used = jnp.broadcast_to(index < num_rounds, shape).ravel()
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), positions)
    # one call of the generator, which takes a while to compile, serves both: each row goes to one of them
    uniform = jax.random.uniform(rng_key, is_used.shape)
    return state._replace(
        seen=reservoir.insert(uniform, state.seen, rows, is_used & ~is_heldout),
        heldout=reservoir.insert(uniform, state.heldout, rows, is_used & is_heldout),
    )


def is_refit_round(round: Array, refit_every: int | None = None) -> Array:
    """Rounds 0, 1, 3, 7, 15, ...: dense at first, when the states teach most; and every `refit_every` rounds."""
    is_due = (round & (round + 1)) == 0
    return is_due if refit_every is None else is_due | (round % refit_every == 0)


def refit(rng_key: Array, state: TrainingState, flow: Flow, optimizer) -> TrainingState:
    """Fit afresh and keep the result if it is better on held-out states; go back to the best and train again."""
    if flow.fit is not None:
        dtype = jax.tree.leaves(state.seen.positions)[0].dtype
        seen_weights, heldout_weights = (reservoir.weights(r, dtype) for r in (state.seen, state.heldout))
        candidate = flow.fit(
            rng_key, state.best, state.seen.positions, seen_weights, state.heldout.positions, heldout_weights
        )
        is_first = jnp.isinf(state.best_loss)
        new, old = heldout_losses(state, [candidate, state.best], flow)
        # at the very start any usable fit beats the untouched flow, whose scale means nothing
        wins = is_usable(candidate) & ((new < old) | is_first)
        state = state._replace(best=select(wins, candidate, state.best), best_loss=jnp.where(wins, new, old))
    elif not is_trained(flow, state.best):
        # neither fitted nor trained: what it is worth is known from the first states on
        loss = heldout_loss(state, state.best, flow)
        state = state._replace(best_loss=loss.astype(state.best_loss.dtype))
    # the optimiser's moments belong to parameters that may be gone
    opt_state = masked_optimizer(optimizer, flow, state.best).init(state.best)
    return state._replace(params=state.best, average=state.best, opt_state=opt_state, num_stale=jnp.array(0))


def learn(
    rng_key: Array,
    state: TrainingState,
    pool: tuple[PyTree, Array | None],
    logdensity_fn: LogDensity,
    is_wanted: Array,
    how: Training,
) -> tuple[TrainingState, TrainingInfo]:
    """One burst of gradient steps, unless training rests or is not wanted, then the comparison on held-out states."""
    flow = how.flow
    is_trainable = is_trained(flow, state.params)
    is_training = is_wanted & (state.num_stale < how.patience) & is_trainable
    optimizer = masked_optimizer(how.optimizer, flow, state.params)

    def objective(params, key):
        params = params if flow.trainable is None else stop_gradients(flow.trainable(params), params)
        key_batch, key_loss = jax.random.split(key)
        batch = Batch(reservoir.choose(key_batch, state.seen, how.batch_size), *pool)
        return how.loss(key_loss, params, batch, flow, logdensity_fn)

    def train_step(carry, key):
        params, average, opt_state = carry
        value, grads = jax.value_and_grad(objective)(params, key)
        updates, new_opt_state = optimizer.update(grads, opt_state, params)
        new_params = optax.apply_updates(params, updates)
        is_good = jnp.isfinite(value) & is_finite(grads) & is_usable(new_params)
        params, opt_state = select(is_good, (new_params, new_opt_state), (params, opt_state))
        average = jax.tree.map(lambda a, p: jnp.where(a == p, a, AVERAGING * a + (1 - AVERAGING) * p), average, params)
        return (params, average, opt_state), (value, ~is_good)

    def train():
        keys = jax.random.split(rng_key, how.num_train_steps)
        carry = (state.params, state.average, state.opt_state)
        (params, average, opt_state), (values, skipped) = jax.lax.scan(train_step, carry, keys)
        # the average has less noise, the parameters themselves are ahead while much is still to be learned
        of_params, of_average, old = heldout_losses(state, [params, average, state.best], flow)
        candidate, new = select(~(of_average <= of_params), (params, of_params), (average, of_average))
        wins = (new < old) | (jnp.isfinite(new) & ~jnp.isfinite(old))
        has_gained = wins & ~(old - new < MIN_LOSS_GAIN)
        trained = state._replace(
            params=params,
            average=average,
            opt_state=opt_state,
            best=select(wins, candidate, state.best),
            best_loss=jnp.where(wins, new, old),
            num_stale=jnp.where(has_gained, 0, state.num_stale + 1),
        )
        return trained, TrainingInfo(values[-1], trained.best_loss, jnp.sum(skipped, dtype=jnp.int32), is_training)

    def rest():
        not_a_number = jnp.full_like(state.best_loss, jnp.nan)
        return state, TrainingInfo(not_a_number, state.best_loss, jnp.array(0, jnp.int32), is_training)

    return jax.lax.cond(is_training, train, rest) if is_trainable and how.num_train_steps else rest()


def is_trained(flow: Flow, params: PyTree) -> bool:
    """Whether gradients have anything to train in `params`, arrays or their shapes."""
    mask = True if flow.trainable is None else flow.trainable(params)
    return any(jax.tree.leaves(jax.tree.map(lambda is_on, part: is_on and bool(jax.tree.leaves(part)), mask, params)))


def heldout_loss(state: TrainingState, params: PyTree, flow: Flow) -> Array:
    """Mean of -log q over held-out states (over the training states while there are none); NaN is never better."""
    memory = jax.tree.map(
        lambda h, s: jnp.where(state.heldout.count > 0, h, s[: h.shape[0]]),
        state.heldout.positions,
        state.seen.positions,
    )
    count = jnp.where(state.heldout.count > 0, state.heldout.count, state.seen.count)
    log_prob = jax.vmap(flow.log_prob, (None, 0))(params, memory)
    in_use = jnp.arange(log_prob.shape[0]) < count
    return -jnp.sum(jnp.where(in_use, log_prob, 0.0)) / jnp.sum(in_use)


def heldout_losses(state: TrainingState, several: list[PyTree], flow: Flow) -> Array:
    """The held-out losses of several parameters, one after the other: the flow's density is compiled once."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    return jax.lax.map(lambda params: heldout_loss(state, params, flow), stacked)


def masked_optimizer(
    optimizer: optax.GradientTransformation, flow: Flow, params: PyTree
) -> optax.GradientTransformation:
    """Keep the optimiser (its weight decay, say) away from what only ``flow.fit`` sets."""
    return optimizer if flow.trainable is None else optax.masked(optimizer, flow.trainable(params))


def is_finite(tree: PyTree) -> Array:
    """Whether no leaf holds a NaN or an infinity."""
    return reduce(jnp.logical_and, (jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)), jnp.array(True))


def is_usable(params: PyTree) -> Array:
    """The same for parameters, where -inf may stand as the log weight of an unused mixture component."""
    return is_finite(jax.tree.map(lambda leaf: jnp.where(leaf == -jnp.inf, 0.0, leaf), params))


def select(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """Whole tree `new` or whole tree `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
