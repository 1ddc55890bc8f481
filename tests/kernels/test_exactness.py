"""Exact draws of a target pushed through a kernel must keep their law; kernels broken on purpose must be found out."""

from functools import cache, partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import helpers
from support.helpers import TARGETS, Target, flow_params, invariance_z, is_exact, share_moved
from support.helpers import small_flow as flow_for
from support.rounds import HALF_NORMAL, WALL_FLOW, frozen, halved, small_isir

from flowmcmc import Flow, Tuning, cycle, freeze, imh, real_nvp, vmap_chains

STATES = ["untrained", "wrong", "trained"]


def mixed_cycle(target, flow, params, first=lambda logdensity_fn: blackjax.barker(logdensity_fn, 0.5)):
    parts = [
        (first(target.logdensity), 1),
        (small_isir(target.logdensity, flow, params), 1),
        (blackjax.hmc(target.logdensity, 0.3, jnp.ones_like(jax.flatten_util.ravel_pytree(target.position)[0]), 3), 1),
        (imh(target.logdensity, flow, params), 2),
    ]
    return vmap_chains(cycle(*parts))


KERNELS = {
    "imh": lambda target, flow, params: vmap_chains(imh(target.logdensity, flow, params)),
    "isir": lambda target, flow, params: vmap_chains(small_isir(target.logdensity, flow, params)),
    "freeze": frozen,
    "cycle": mixed_cycle,
}


@cache
def pusher(name, kernel, num_steps=2):
    """One compiled program for all parameters of a target's flow."""
    return helpers.push_ensemble(partial(KERNELS[kernel], TARGETS[name], flow_for(name)), num_steps)


# the cycle of four kernels takes longest to compile, and the funnel has no structure that the others lack
PAIRS = [(name, kernel) for name in TARGETS for kernel in KERNELS if (name, kernel) != ("funnel", "cycle")]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("name", "kernel"), PAIRS)
def test_exact_draws_keep_their_law(name, kernel, state):
    target = TARGETS[name]
    before = target.draws(31)
    after = pusher(name, kernel)(jax.random.key(32), flow_params(name)[state], before)
    z = invariance_z(target.functions, before, after)
    assert is_exact(z), z
    assert share_moved(before, after) > (0.03 if state == "wrong" else 0.2)


def random_walk(logdensity_fn):
    return blackjax.additive_step_random_walk.normal_random_walk(logdensity_fn, 0.5 * jnp.ones(2, jnp.float32))


# BlackJAX's mala and barker draw double precision noise wherever JAX has it
SINGLE = KERNELS | {
    "freeze": partial(frozen, local=partial(blackjax.hmc, num_integration_steps=3)),
    "cycle": partial(mixed_cycle, first=random_walk),
}


@pytest.mark.parametrize("kernel", SINGLE)
def test_in_single_precision_too(kernel):
    """Positions, the flow and the density in float32."""
    single = partial(jax.tree.map, lambda x: x.astype(jnp.float32))
    double = TARGETS["mixture"]
    target = Target(lambda x: single(double.logdensity(x)), lambda key: single(double.draw(key)), double.functions)
    flow = real_nvp(target.position, num_layers=2, hidden=8, num_components=2)
    params = single(flow_params("mixture")["trained"])
    before = target.draws(31)
    after = helpers.push_ensemble(partial(SINGLE[kernel], target, flow), 2)(jax.random.key(32), params, before)
    assert before.dtype == after.dtype == jnp.float32
    z = invariance_z(target.functions, before, after)
    assert is_exact(z), z
    assert share_moved(before, after) > 0.2


MUTANTS = {
    "imh without q": helpers.without_flow_density(),
    "imh with q at the wrong state": helpers.with_swapped_flow_density,
    "imh whose passes disagree": helpers.with_disagreeing_passes,
    "imh with a stale log weight": helpers.with_stale_weight,
    "isir without q": helpers.without_flow_density(small_isir),
    "isir without the current state": helpers.isir_without_current(small_isir),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_kernels_are_found_out(mutant):
    target, flow = TARGETS["mixture"], flow_for("mixture")
    before = target.draws(31)
    push = helpers.push(lambda params: MUTANTS[mutant](target.logdensity, flow, params), 12)
    after = push(jax.random.key(32), flow_params("mixture")["untrained"], before)
    z = invariance_z(target.functions, before, after)
    assert np.abs(z).max() > 2 * helpers.THRESHOLD, z  # with room to spare: no luck in it


def gradient_is_nan(x):
    """The half normal whose gradient is NaN on (0.5, 1): the usual slip of a `where` around a square root."""
    slip = jnp.where((x > 0.5) & (x < 1), jnp.sqrt(0.0 * x), 0.0)
    return jnp.where(x > 0, -0.5 * x**2 + slip, -jnp.inf)


def undefined_outside(x):
    """The log of something negative: NaN, and so is its gradient."""
    return -0.5 * x**2 + 0.0 * jnp.log(x)


def wall_kernels(logdensity, params):
    freeze_at = partial(freeze, logdensity, blackjax.mala, WALL_FLOW)
    return {
        "imh": vmap_chains(imh(logdensity, WALL_FLOW, params)),
        "isir": vmap_chains(small_isir(logdensity, WALL_FLOW, params)),
        "freeze": freeze_at(Tuning(params, jnp.array(0.5), jnp.array(1.0)), num_local_steps=2, num_flow_steps=1),
    }


WALLS = {
    "hard wall": halved(-jnp.inf),
    "NaN": halved(jnp.nan),
    "NaN and its gradient": undefined_outside,
    "NaN gradient inside": gradient_is_nan,
    "+inf": halved(jnp.inf),
}


@cache
def wall_pusher(kernel):
    """One compiled program for all walls: which of them is an argument."""

    def make(which):
        return wall_kernels(lambda x: jax.lax.switch(which, list(WALLS.values()), x), ())[kernel]

    return helpers.push_ensemble(make, 3)


@pytest.mark.parametrize("kernel", ["imh", "isir", "freeze"])
@pytest.mark.parametrize("wall", WALLS)
def test_the_half_normal_keeps_its_law(wall, kernel):
    before = HALF_NORMAL.draws(41)
    after = wall_pusher(kernel)(jax.random.key(42), list(WALLS).index(wall), before)
    z = invariance_z(HALF_NORMAL.functions, before, after)
    assert is_exact(z), z
    assert np.asarray(after > 0).all()
    assert share_moved(before, after) > 0.5


@pytest.mark.parametrize(("is_wrongly_accepted", "value"), [(jnp.isnan, jnp.nan), (jnp.isposinf, jnp.inf)])
def test_accepting_a_bad_density_is_found_out(is_wrongly_accepted, value):
    before = HALF_NORMAL.draws(41)
    mutant = helpers.accepting(is_wrongly_accepted)
    after = helpers.push(lambda params: mutant(halved(value), WALL_FLOW, params), 3)(jax.random.key(42), (), before)
    assert not is_exact(invariance_z(HALF_NORMAL.functions, before, after))


def test_where_the_flows_density_is_nan_chains_do_not_drain_away():
    """A flow on (-1, 1) written without care: log q is NaN elsewhere, where the target has a third of its mass.

    Nothing is ever proposed there, so nothing may be taken away from there.
    """

    def sample_and_log_prob(key, params):
        x = 2 * jnp.sqrt(jax.random.uniform(key)) - 1
        return x, jnp.log((1 + x) / 2)

    def log_prob(params, x):
        return jnp.log((1 + x) / 2) + 0 * jnp.sqrt(1 - x)

    flow = Flow(lambda key, position: (), sample_and_log_prob, log_prob)
    target = Target(
        lambda x: -0.5 * x**2, jax.random.normal, lambda x: jnp.array([x, x**2, jnp.abs(x) > 1, jnp.cos(3 * x)])
    )
    before = target.draws(44)
    after = helpers.push(lambda params: imh(target.logdensity, flow, params), 2)(jax.random.key(45), (), before)
    z = invariance_z(target.functions, before, after)
    assert is_exact(z), z
