"""Targets with exact draws, flows trained or not, and the two statistics that decide whether a kernel is exact.

`invariance_z` pushes exact draws through a kernel and compares the same draws before and after; `identity_error` is the
residual of p(x) q(y) a(x, y) = p(y) q(x) a(y, x). Both are handed broken kernels too, and must reject them.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm

from flowmcmc import Flow, imh, real_nvp

# at most 12 functions in each of some 50 comparisons: P(any |z| > 4.5) = 600 * 6.8e-6 = 0.4 %, and the seeds are fixed
THRESHOLD = 4.5
NUM_DRAWS = 20_000


class Target(NamedTuple):
    """`logdensity(position)`, exact `draw(key) -> position`, and `functions(position) -> (f,)` to compare means of."""

    logdensity: Callable
    draw: Callable
    functions: Callable

    @property
    def position(self):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(self.draw, jax.random.key(0)))

    def draws(self, seed: int, num: int = NUM_DRAWS):
        return jax.jit(jax.vmap(self.draw))(jax.random.split(jax.random.key(seed), num))


# --- targets -------------------------------------------------------------------------------------------------------

MEANS = np.array([[-2.0, 0.5], [2.0, -0.5]])
SCALES = np.array([[0.6, 1.0], [0.8, 0.4]])
SHARES = np.array([0.3, 0.7])


def mixture_logdensity(x):
    log_joint = jnp.log(SHARES) + jnp.sum(norm.logpdf(x[None], MEANS, SCALES), axis=1)
    return jax.nn.logsumexp(log_joint)


def mixture_draw(key):
    key_component, key_normal = jax.random.split(key)
    k = jax.random.categorical(key_component, jnp.log(SHARES))
    return jnp.asarray(MEANS)[k] + jnp.asarray(SCALES)[k] * jax.random.normal(key_normal, (2,))


def mixture_functions(x):
    return jnp.array([x[0], x[1], x[0] ** 2, x[1] ** 2, x[0] * x[1], x[0] > 0, mixture_logdensity(x)])


def funnel_logdensity(x):
    return norm.logpdf(x[0]) + jnp.sum(norm.logpdf(x[1:], 0.0, jnp.exp(x[0] / 2)))


def funnel_draw(key):
    z = jax.random.normal(key, (3,))
    return z.at[1:].multiply(jnp.exp(z[0] / 2))


def funnel_functions(x):
    # bounded in x[1:], whose fourth moments are too large for a central limit theorem at these sizes
    wide = jnp.tanh(jnp.abs(x[1]))
    return jnp.array(
        [x[0], x[0] ** 2, jnp.tanh(x[1]), jnp.tanh(x[2]), wide, jnp.tanh(x[0]) * wide, wide * jnp.tanh(x[2] ** 2)]
        + [x[0] > 1, funnel_logdensity(x)]
    )


def dict_logdensity(x):
    """A normal scalar, a curved ridge above it, and the log of an exponential."""
    ridge = jnp.sum(norm.logpdf(x["b"], jnp.array([x["a"], 0.5 * x["a"] ** 2]), 0.5))
    return norm.logpdf(x["a"], 1.0, 1.0) + ridge + jnp.sum(x["c"] - jnp.exp(x["c"]))


def dict_draw(key):
    key_a, key_b, key_c = jax.random.split(key, 3)
    a = 1.0 + jax.random.normal(key_a)
    b = jnp.array([a, 0.5 * a**2]) + 0.5 * jax.random.normal(key_b, (2,))
    return {"a": a, "b": b, "c": jnp.log(jax.random.exponential(key_c, (1, 1)))}


def dict_functions(x):
    a, (b0, b1), c = x["a"], x["b"], x["c"][0, 0]
    return jnp.array([a, b0, b1, c, a**2, b0**2, jnp.exp(c), a * b0, a * b1, b1 * c, b1 > 1, dict_logdensity(x)])


TARGETS = {
    "mixture": Target(mixture_logdensity, mixture_draw, mixture_functions),
    "funnel": Target(funnel_logdensity, funnel_draw, funnel_functions),
    "dict": Target(dict_logdensity, dict_draw, dict_functions),
}


# --- flows ---------------------------------------------------------------------------------------------------------


@cache
def small_flow(name: str) -> Flow:
    """The same small flow for every test on a target, so that compiled programs are shared."""
    num_components = 2 if name == "mixture" else 1
    return real_nvp(TARGETS[name].position, num_layers=2, hidden=8, num_components=num_components)


@cache
def flow_params(name: str) -> dict[str, Any]:
    """Parameters of `small_flow`: as initialised, wrong (shifted and too narrow, layers scrambled), and trained."""
    flow, target = small_flow(name), TARGETS[name]
    untrained = jax.tree.map(np.asarray, jax.jit(flow.init)(jax.random.key(1), target.position))
    scrambled = jax.tree.map(lambda leaf: leaf + 0.1 * np.sin(np.arange(leaf.size)).reshape(leaf.shape), untrained)
    wrong = scrambled._replace(
        affine=untrained.affine._replace(loc=untrained.affine.loc + 0.8, scale=untrained.affine.scale * 0.6),
        mixture=untrained.mixture,
    )
    return {"untrained": untrained, "wrong": wrong, "trained": train(flow, untrained, target.draws(2, 2000))}


def train(flow: Flow, params, positions, num_steps: int = 200, learning_rate: float = 5e-3):
    """`flow.fit`, if there is one, then forward KL on exact draws by Adam; returns float leaves of the same dtype."""
    if flow.fit is not None:
        ones = jnp.ones(jax.tree.leaves(positions)[0].shape[0])
        params = jax.jit(flow.fit)(jax.random.key(3), params, positions, ones, positions, ones)
    optimizer = optax.adam(learning_rate)

    def step(carry, _):
        params, opt_state = carry
        grads = jax.grad(lambda p: -jnp.mean(jax.vmap(flow.log_prob, (None, 0))(p, positions)))(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    @jax.jit
    def loop(params):
        return jax.lax.scan(step, (params, optimizer.init(params)), None, num_steps)[0][0]

    return loop(params)


def gaussian_flow(loc: float, scale: float) -> Flow:
    """N(loc, scale^2) on scalars, with no parameters: as plain as a `Flow` can be."""

    def sample_and_log_prob(key, params):
        x = loc + scale * jax.random.normal(key)
        return x, norm.logpdf(x, loc, scale)

    return Flow(lambda key, position: (), sample_and_log_prob, lambda params, x: norm.logpdf(x, loc, scale))


def plain_flow(loc: float, scale: float, dim: int) -> Flow:
    """The same on vectors."""

    def log_prob(params, x):
        return jnp.sum(norm.logpdf(x, loc, scale))

    def sample_and_log_prob(key, params):
        x = loc + scale * jax.random.normal(key, (dim,))
        return x, log_prob(params, x)

    return Flow(lambda key, position: (), sample_and_log_prob, log_prob)


def returning(flow: Flow) -> Flow:
    """A flow with the density of `flow` that always proposes one point: its params are ``(params, point)``."""
    return Flow(
        flow.init,
        lambda key, params: (params[1], flow.log_prob(*params)),
        lambda params, position: flow.log_prob(params[0], position),
    )


# --- the two statistics --------------------------------------------------------------------------------------------


def push(make_algorithm: Callable, num_steps: int) -> Callable:
    """Compiled ``(key, params, positions) -> positions``: `init` and `num_steps` steps of a kernel on each draw."""

    def one(key, params, position):
        algorithm = make_algorithm(params)
        key_init, key_steps = jax.random.split(key)
        state = algorithm.init(position, key_init)
        keys = jax.random.split(key_steps, num_steps)
        return jax.lax.scan(lambda s, k: (algorithm.step(k, s)[0], None), state, keys)[0].position

    @jax.jit
    def all_draws(key, params, positions):
        keys = jax.random.split(key, jax.tree.leaves(positions)[0].shape[0])
        return jax.vmap(one, (0, None, 0))(keys, params, positions)

    return all_draws


def push_ensemble(make_algorithm: Callable, num_steps: int) -> Callable:
    """The same for a sampler of all chains at once: one ensemble, a chain for each draw."""

    @jax.jit
    def all_draws(key, params, positions):
        algorithm = make_algorithm(params)
        key_init, key_steps = jax.random.split(key)
        state = algorithm.init(positions, key_init)
        keys = jax.random.split(key_steps, num_steps)
        return jax.lax.scan(lambda s, k: (algorithm.step(k, s)[0], None), state, keys)[0].position

    return all_draws


def invariance_z(functions: Callable, before, after) -> np.ndarray:
    """z score of each function's mean change over the same draws; NaN (never small) if a change is not finite."""
    values = jax.jit(jax.vmap(functions))
    change = np.asarray(values(after), float) - np.asarray(values(before), float)
    error = change.std(axis=0) / np.sqrt(len(change))
    return np.where(change.any(axis=0), change.mean(axis=0) / np.where(error > 0, error, 1e-300), 0.0)


def two_sample_z(functions: Callable, first, second) -> np.ndarray:
    """z score of the difference of means between two independent sets of draws."""
    a, b = (np.asarray(jax.jit(jax.vmap(functions))(x), float) for x in (first, second))
    return (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b) + 1e-300)


def is_exact(z: np.ndarray) -> bool:
    """Whether no function's mean has moved by more than chance allows; False for NaN."""
    return bool(np.all(np.abs(z) < THRESHOLD))


def share_moved(before, after) -> float:
    """Share of draws that are elsewhere: a kernel that never moves is exact but proves nothing."""
    return float(np.mean(np.asarray(jax.tree.leaves(before)[0] != jax.tree.leaves(after)[0])))


@cache
def identity_residuals(logdensity: Callable, flow: Flow, make_kernel: Callable) -> Callable:
    """Compiled ``(params, positions) -> residuals``, see `identity_error`."""

    def one(key, params, x):
        kernel = make_kernel(logdensity, flow, params)
        _, there = kernel.step(key, kernel.init(x))
        y = there.proposal
        # the way back: the same kernel, made to propose x
        reverse = make_kernel(logdensity, returning(flow), (params, x))
        _, back = reverse.step(key, reverse.init(y))
        forward = logdensity(x) + flow.log_prob(params, y) + jnp.log(there.acceptance_rate)
        backward = logdensity(y) + flow.log_prob(params, x) + jnp.log(back.acceptance_rate)
        ratio = logdensity(y) - flow.log_prob(params, y) - logdensity(x) + flow.log_prob(params, x)
        # beyond e^-700 one of the acceptance rates is zero in double precision: then it must be the right one
        rate = jnp.where(ratio < 0, there.acceptance_rate, back.acceptance_rate)
        return jnp.where((jnp.abs(ratio) > 700) & (rate < 1e-300), 0.0, jnp.abs(forward - backward))

    @jax.jit
    def residuals(params, xs):
        keys = jax.random.split(jax.random.key(4), jax.tree.leaves(xs)[0].shape[0])
        return jax.vmap(one, (0, None, 0))(keys, params, xs)

    return residuals


def identity_error(logdensity: Callable, flow: Flow, params, xs, make_kernel: Callable = imh) -> np.ndarray:
    """|log of p(x) q(y) a(x, y) - log of p(y) q(x) a(y, x)| for one proposal y from each x, acceptance as reported."""
    return np.asarray(identity_residuals(logdensity, flow, make_kernel)(params, xs))


# --- kernels broken on purpose: each is the library's own kernel with one thing changed ---------------------------


def without_flow_density(make_kernel: Callable = imh) -> Callable:
    """Accepts with p(y) / p(x): the flow is sampled, but its density is left out."""

    def make(logdensity_fn, flow, params, **options):
        def sample_and_log_prob(key, params):
            return flow.sample_and_log_prob(key, params)[0], jnp.zeros(())

        mute = flow._replace(sample_and_log_prob=sample_and_log_prob, log_prob=lambda params, x: jnp.zeros(()))
        return make_kernel(logdensity_fn, mute, params, **options)

    return make


def with_swapped_flow_density(logdensity_fn, flow, params):
    """Evaluates q at the wrong one of the two states: p(y) q(y) / (p(x) q(x))."""

    def sample_and_log_prob(key, params):
        position, log_prob = flow.sample_and_log_prob(key, params)
        return position, -log_prob

    swapped = flow._replace(
        sample_and_log_prob=sample_and_log_prob, log_prob=lambda params, x: -flow.log_prob(params, x)
    )
    return imh(logdensity_fn, swapped, params)


def with_disagreeing_passes(logdensity_fn, flow, params):
    """A flow whose sampling pass has lost a log determinant: its density is off by a factor of two."""

    def sample_and_log_prob(key, params):
        position, log_prob = flow.sample_and_log_prob(key, params)
        return position, log_prob + jnp.log(2)

    return imh(logdensity_fn, flow._replace(sample_and_log_prob=sample_and_log_prob), params)


def with_stale_weight(logdensity_fn, flow, params):
    """Forgets to update the cached log weight when a proposal is accepted."""
    kernel = imh(logdensity_fn, flow, params)

    def step(key, state):
        new_state, info = kernel.step(key, state)
        return new_state._replace(log_weight=state.log_weight), info

    return kernel._replace(step=step)


def accepting(is_wrongly_accepted: Callable) -> Callable:
    """`imh` that also accepts whatever `is_wrongly_accepted(logdensity of the proposal)` marks."""

    def make(logdensity_fn, flow, params):
        kernel = imh(logdensity_fn, flow, params)

        def step(key, state):
            new_state, info = kernel.step(key, state)
            is_wrong = is_wrongly_accepted(logdensity_fn(info.proposal))
            position = jax.tree.map(lambda y, x: jnp.where(is_wrong, y, x), info.proposal, new_state.position)
            return new_state._replace(position=position), info

        return kernel._replace(step=step)

    return make


def isir_without_current(make_isir: Callable) -> Callable:
    """i-SIR that chooses among the fresh draws alone."""

    def make(logdensity_fn, flow, params):
        kernel = make_isir(logdensity_fn, flow, params)

        def step(key, state):
            new_state, info = kernel.step(key, state)
            fresh = jax.random.categorical(jax.random.fold_in(key, 1), info.proposal_log_weight[1:])
            position = jax.tree.map(lambda leaf: leaf[1 + fresh], info.proposal)
            return new_state._replace(position=position, log_weight=info.proposal_log_weight[1 + fresh]), info

        return kernel._replace(step=step)

    return make
