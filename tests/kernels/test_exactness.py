"""Exact draws of a target pushed through a kernel must keep their law; kernels broken on purpose must be found out."""

from functools import cache, partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import helpers
from support.helpers import NUM_DRAWS, TARGETS, Target, flow_params, gaussian_flow, invariance_z, is_exact, share_moved
from support.helpers import small_flow as flow_for

from flowmcmc import Flow, Tuning, adaptive, cycle, freeze, gaussian_mixture, imh, isir, jittered, vmap_chains
from flowmcmc.kernels.jittered import within_modes

STATES = ["untrained", "wrong", "trained"]
small_isir = partial(isir, num_proposals=4)


def tuning(target, params, step_size=0.4):
    """Local steps in coordinates of unequal scales, as warm-up would leave them."""
    scale = jax.tree.map(lambda x: jnp.full(x.shape, 0.5).at[(-1,) * x.ndim].set(2.0), target.position)
    return Tuning(params, jnp.array(step_size), scale)


def frozen(target, flow, params, local=blackjax.mala, flow_kernel=imh, num_flow_steps=2):
    return freeze(
        target.logdensity,
        local,
        flow,
        tuning(target, params),
        num_local_steps=2,
        num_flow_steps=num_flow_steps,
        flow_kernel=flow_kernel,
    )


def mixed_cycle(target, flow, params):
    parts = [
        (blackjax.barker(target.logdensity, 0.5), 1),
        (small_isir(target.logdensity, flow, params), 1),
        (blackjax.hmc(target.logdensity, 0.3, jnp.ones(jax.flatten_util.ravel_pytree(target.position)[0].size), 3), 1),
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


def test_the_local_part_alone_and_isir_as_flow_kernel():
    target = TARGETS["mixture"]
    before = target.draws(33)
    for options in (
        {"num_flow_steps": 0},
        {"local": partial(blackjax.hmc, num_integration_steps=3), "flow_kernel": small_isir},
        {"local": jittered(partial(blackjax.hmc, num_integration_steps=3)), "num_flow_steps": 0},
        {"local": jittered(blackjax.mala, lowest=0.1), "num_flow_steps": 0},
    ):
        make = partial(frozen, target, flow_for("mixture"), **options)
        after = helpers.push_ensemble(make, 2)(jax.random.key(34), flow_params("mixture")["trained"], before)
        z = invariance_z(target.functions, before, after)
        assert is_exact(z), (options, z)
        assert share_moved(before, after) > 0.3


def bent_mixture(target):
    """A flow and parameters whose covariances are far from round."""
    flow = gaussian_mixture(target.position, num_components=2)
    params = flow.init(jax.random.key(0), target.position)
    dim = params.affine.loc.size
    lower = jnp.tril(jax.random.normal(jax.random.key(1), (2, dim, dim)), -1)
    roots = lower + jnp.diag(jnp.linspace(0.3, 1.5, dim))
    return flow, params._replace(
        affine=params.affine._replace(scale=jnp.linspace(1.0, 2.0, dim), cholesky=roots[0]),
        mixture=params.mixture._replace(cholesky=roots, log_weights=jnp.log(jnp.array([0.3, 0.7]))),
    )


def test_the_metric_of_a_mixture_keeps_the_law_and_one_that_depends_on_the_place_is_found_out():
    target = TARGETS["mixture"]
    before = target.draws(33)
    flow, params = bent_mixture(target)
    hmc = partial(blackjax.hmc, num_integration_steps=3)

    def uneven(logdensity_fn, step_size, scale, params):
        def step(rng_key, state):
            is_even = jnp.sin(3 * jax.flatten_util.ravel_pytree(state.position)[0][0]) > 0
            size = jnp.where(is_even, 0.3, 0.06)
            bent = params._replace(affine=params.affine._replace(scale=size * params.affine.scale))
            return within_modes(hmc)(logdensity_fn, step_size, scale, bent).step(rng_key, state)

        return within_modes(hmc)(logdensity_fn, step_size, scale, params)._replace(step=step)

    def z_of(local, num_steps):
        make = partial(frozen, target, flow, local=local, num_flow_steps=0)
        after = helpers.push_ensemble(make, num_steps)(jax.random.key(34), params, before)
        assert share_moved(before, after) > 0.1
        return invariance_z(target.functions, before, after)

    assert is_exact(z := z_of(within_modes(hmc), 2)), z
    assert is_exact(z := z_of(within_modes(jittered(hmc)), 2)), z
    assert not is_exact(z_of(uneven, 60))


def test_the_metric_is_the_covariance_within_components():
    target = TARGETS["mixture"]
    _, params = bent_mixture(target)
    flow_alone = gaussian_mixture(target.position, num_components=2, defensive=0.0)
    known = []

    def recorder(logdensity_fn, step_size, inverse_mass_matrix):
        known.append(inverse_mass_matrix)
        return blackjax.hmc(logdensity_fn, step_size, inverse_mass_matrix, 3)

    scale = tuning(target, params).scale
    within_modes(recorder)(target.logdensity, 0.1, scale, params)
    draws = []
    for log_weights in (jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])):
        alone = params._replace(mixture=params.mixture._replace(log_weights=log_weights))
        keys = jax.random.split(jax.random.key(2), 40_000)
        x, _ = jax.vmap(flow_alone.sample_and_log_prob, (0, None))(keys, alone)
        x = jax.vmap(lambda x: jax.flatten_util.ravel_pytree(x)[0])(jax.tree.map(jnp.divide, x, scale))
        draws.append(np.cov(np.asarray(x).T))
    expected = 0.3 * draws[0] + 0.7 * draws[1]
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((known[0] - expected) / size).max() < 0.03  # 40,000 draws: standard error 0.007


def test_a_step_size_that_depends_on_the_place_is_found_out():
    def uneven(logdensity_fn, step_size):
        plain = blackjax.mala(logdensity_fn, step_size)

        def step(rng_key, state):
            share = jnp.where(jnp.sin(3 * jax.flatten_util.ravel_pytree(state.position)[0][0]) > 0, 1.0, 0.02)
            return blackjax.mala(logdensity_fn, share * step_size).step(rng_key, state)

        return plain._replace(step=step)

    target = TARGETS["mixture"]
    before = target.draws(33)
    make = partial(frozen, target, flow_for("mixture"), local=uneven, num_flow_steps=0)
    after = helpers.push_ensemble(make, 12)(jax.random.key(34), flow_params("mixture")["trained"], before)
    z = invariance_z(target.functions, before, after)
    assert np.abs(z).max() > 2 * helpers.THRESHOLD, z


def test_jittered_checks_its_range():
    with pytest.raises(ValueError, match="lowest must lie between 0 and 1"):
        jittered(blackjax.mala, lowest=1.5)


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


# --- walls, NaN and infinite densities -----------------------------------------------------------------------------

HALF_NORMAL = Target(
    lambda x: -0.5 * x**2,
    lambda key: jnp.abs(jax.random.normal(key)),
    lambda x: jnp.array([x, x**2, x < 0, x > 1.5, jnp.cos(3 * x)]),
)
WALL_FLOW = gaussian_flow(0.3, 1.2)


def halved(value):
    """N(0, 1) on x > 0, and `value` elsewhere."""
    return lambda x: jnp.where(x > 0, -0.5 * x**2, value)


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


@pytest.mark.parametrize("kernel", ["imh", "isir", "freeze"])
@pytest.mark.parametrize("wall", WALLS)
def test_the_half_normal_keeps_its_law(wall, kernel):
    before = HALF_NORMAL.draws(41)
    push = helpers.push_ensemble(lambda params: wall_kernels(WALLS[wall], params)[kernel], 3)
    after = push(jax.random.key(42), (), before)
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


@pytest.mark.parametrize(("value", "is_counted"), [(jnp.nan, True), (jnp.inf, True), (-jnp.inf, False)])
def test_rounds_count_invalid_flow_proposals(value, is_counted):
    kernel = freeze(
        halved(value),
        blackjax.mala,
        WALL_FLOW,
        Tuning((), jnp.array(0.5), jnp.array(1.0)),
        num_local_steps=0,
        num_flow_steps=4,
    )
    _, info = kernel.step(jax.random.key(0), kernel.init(HALF_NORMAL.draws(43, 1000)))
    counts = np.asarray(info.num_flow_invalid)
    # P(proposal < 0) = Phi(-0.3 / 1.2) = 0.4013
    assert counts.mean() == pytest.approx(4 * 0.4013 if is_counted else 0, abs=0.15)
    assert ((info.num_flow_accepted >= 0) & (info.num_flow_accepted <= 4 - counts)).all()


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


# --- adaptation that does not end ----------------------------------------------------------------------------------


def test_training_while_drawing_is_found_out():
    """Two chains and a flow refitted to them each round: the proposal follows the chains, and shrinks with them."""

    def moments(x):
        return jnp.array([x[0], x[0] ** 2, jnp.abs(x[0]), jnp.abs(x[0]) > 1.5])

    target = Target(lambda x: -0.5 * jnp.sum(x**2), lambda key: jax.random.normal(key, (1,)), moments)
    flow = gaussian_mixture(target.position, num_components=1, defensive=0.0)
    options = {"num_local_steps": 0, "num_flow_steps": 2}
    learner = adaptive(
        target.logdensity, blackjax.mala, flow, optax.sgd(1.0), num_train_steps=0, history_size=8, **options
    )
    num_rounds = 4

    def learning(key, positions):
        state = learner.init(positions, key)
        keys = jax.random.split(key, num_rounds)
        return jax.lax.scan(lambda s, k: (learner.step(k, s)[0], None), state, keys)[0]

    def drawing(key, params, positions):
        kernel = freeze(
            target.logdensity,
            blackjax.mala,
            flow,
            Tuning(params, jnp.array(0.1), jnp.ones(1)),
            **options,
        )
        keys = jax.random.split(key, num_rounds)
        return jax.lax.scan(lambda s, k: (kernel.step(k, s)[0], None), kernel.init(positions), keys)[0].position

    before = target.draws(51).reshape(-1, 2, 1)
    keys = jax.random.split(jax.random.key(52), len(before))
    learned = jax.jit(jax.vmap(learning))(keys, before)
    flat = before.reshape(NUM_DRAWS, 1)
    assert not is_exact(invariance_z(target.functions, flat, learned.position.reshape(NUM_DRAWS, 1)))
    # what was learned, frozen, is exact on other chains
    fresh = target.draws(53).reshape(-1, 2, 1)
    after = jax.jit(jax.vmap(drawing))(keys, learned.tuning.params, fresh)
    z = invariance_z(target.functions, fresh.reshape(NUM_DRAWS, 1), after.reshape(NUM_DRAWS, 1))
    assert is_exact(z), z
    assert share_moved(fresh, after) > 0.3
