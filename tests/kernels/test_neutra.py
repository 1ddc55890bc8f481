"""A kernel in a flow's latent space leaves the target invariant, but not without its log determinant; `fit_flow`."""

from functools import cache, partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm
from support import helpers
from support.helpers import TARGETS, Target, invariance_z, is_exact, share_moved
from support.targets import two_modes

import flowmcmc
from flowmcmc import Bijection, Flow, Tuning, adaptive, fit_flow, freeze, neutra, real_nvp

HMC = partial(blackjax.hmc, num_integration_steps=3)


def bent_logdensity(x):
    return norm.logpdf(x[0]) + norm.logpdf(x[1], 0.5 * x[0] ** 2, 0.5)


def bent_draw(key):
    z = jax.random.normal(key, (2,))
    return jnp.array([z[0], 0.5 * z[0] ** 2 + 0.5 * z[1]])


def bent_functions(x):
    ridge = x[1] - 0.5 * x[0] ** 2
    return jnp.array([x[0], x[1], x[0] ** 2, x[0] * x[1], ridge, ridge**2, x[0] * ridge, x[0] > 1, bent_logdensity(x)])


BENT = Target(bent_logdensity, bent_draw, bent_functions)
SCALES = {
    "bent": jnp.array([0.5, 2.0]),
    "dict": {"a": jnp.array(2.0), "b": jnp.array([1.0, 0.5]), "c": jnp.ones((1, 1))},
}


def target_of(name):
    return BENT if name == "bent" else TARGETS[name]


@cache
def flow_and_params(name):
    """Mean and spread of draws, and layers of random weights: far from the identity, and from the target."""
    target = target_of(name)
    flow = real_nvp(target.position, num_layers=2, hidden=8, num_components=2)
    draws = jax.vmap(lambda x: ravel_pytree(x)[0])(target.draws(1, 200))
    params = flow.init(jax.random.key(0), target.position)
    affine = params.affine._replace(loc=jnp.mean(draws, axis=0), scale=jnp.std(draws, axis=0))
    leaves, treedef = jax.tree.flatten(params.layers)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    layers = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    assert np.isneginf(params.mixture.log_weights).any()  # an unused component, as after any fit
    return flow, params._replace(affine=affine, layers=jax.tree.unflatten(treedef, layers))


def without_log_det(flow):
    """The flow whose forward pass has lost its volume change."""

    def forward(params, z):
        position, _ = flow.bijection.forward(params, z)
        return position, jnp.zeros(())

    return flow._replace(bijection=flow.bijection._replace(forward=forward))


def bare(name, flow, local, step_size=0.4):
    """The kernel itself, on one chain."""
    return lambda params: neutra(local, flow, params)(target_of(name).logdensity, step_size)


def frozen(name, flow, local, step_size=0.4, scale=None):
    """Inside `freeze`, which hands the density over in units of `scale`."""
    scale = SCALES[name] if scale is None else scale

    def make(params):
        tuning = Tuning(None, jnp.array(step_size), scale)
        options = {"num_local_steps": 2, "num_flow_steps": 0}
        return freeze(target_of(name).logdensity, neutra(local, flow, params), None, tuning, **options)

    return make


def pushed(name, make, push=helpers.push_ensemble, num_steps=2):
    """Exact draws before and after, and z."""
    before = target_of(name).draws(4)
    after = push(make, num_steps)(jax.random.key(5), flow_and_params(name)[1], before)
    return before, after, invariance_z(target_of(name).functions, before, after)


@pytest.mark.parametrize(
    ("name", "local", "is_bare"),
    [("bent", blackjax.hmc, False), ("bent", blackjax.mala, True), ("dict", blackjax.mala, False)],
)
def test_exact_draws_keep_their_law(name, local, is_bare):
    flow, _ = flow_and_params(name)
    local = HMC if local is blackjax.hmc else local
    if is_bare:
        before, after, z = pushed(name, bare(name, flow, local), helpers.push, 4)
    else:
        before, after, z = pushed(name, frozen(name, flow, local))
    assert is_exact(z), z
    assert share_moved(before, after) > 0.3


def test_without_the_log_determinant_it_is_found_out():
    flow = without_log_det(flow_and_params("bent")[0])
    _, _, z = pushed("bent", bare("bent", flow, blackjax.mala), helpers.push, 12)
    assert np.max(np.abs(z)) > 2 * helpers.THRESHOLD, z


def test_the_scale_changes_nothing_and_a_rejected_step_leaves_the_position_bit_equal():
    """The kernel works in latent units: the same draws, to rounding, whatever units a round uses."""
    flow, params = flow_and_params("bent")
    make = lambda given: frozen("bent", flow, blackjax.mala, step_size=given[1], scale=given[2])(given[0])
    push = helpers.push_ensemble(make, 2)
    draws = BENT.draws(6, 500)
    plain, scaled = (push(jax.random.key(7), (params, 0.4, s), draws) for s in (jnp.ones(2), SCALES["bent"]))
    np.testing.assert_allclose(plain, scaled, rtol=1e-6, atol=1e-8)
    assert share_moved(draws, plain) > 0.3
    rejected = push(jax.random.key(7), (params, 1e6, SCALES["bent"]), draws)
    np.testing.assert_array_equal(rejected, draws)


def test_accepted_moves_and_rejected_does_not():
    flow, params = flow_and_params("dict")
    target = TARGETS["dict"]
    draws = target.draws(8, 300)
    kernel = neutra(blackjax.mala, flow, params)(target.logdensity, 0.4)

    @jax.jit
    @jax.vmap
    def one(key, position):
        state, info = kernel.step(key, kernel.init(position))
        return state.position, info.is_accepted

    after, is_accepted = one(jax.random.split(jax.random.key(9), 300), draws)
    assert 20 < np.sum(is_accepted) < 280
    for a, b in zip(jax.tree.leaves(draws), jax.tree.leaves(after)):
        np.testing.assert_array_equal(np.all(np.reshape(a == b, (300, -1)), axis=1), ~is_accepted)


def test_a_chain_that_the_flow_cannot_reach_stays():
    """exp(z) is positive: on the other side the latent point is NaN, and no move may bring that back."""
    flow = Flow(
        lambda rng_key, position: (),
        NotImplemented,
        NotImplemented,
        bijection=Bijection(lambda params, z: (jnp.exp(z), jnp.sum(z)), lambda params, x: (jnp.log(x), -jnp.log(x[0]))),
    )
    positions = jnp.array([[-1.0], [0.0], [1.0], [2.0]])
    tuning = Tuning(None, jnp.array(0.3), jnp.full(1, 2.0))
    logdensity = lambda x: jnp.where(x[0] > 0, -x[0], -jnp.inf)
    kernel = freeze(logdensity, neutra(blackjax.mala, flow, ()), None, tuning, num_flow_steps=0)
    state, info = jax.jit(kernel.step)(jax.random.key(0), kernel.init(positions))
    np.testing.assert_array_equal(state.position[:2], positions[:2])
    assert np.all(np.isfinite(state.position)) and np.all(state.position[2:] != positions[2:])
    np.testing.assert_array_equal(info.num_diverging[:2], 5)


def test_adaptation_finds_a_step_size_in_latent_space():
    flow, params = flow_and_params("bent")
    local = neutra(blackjax.mala, flow, params)
    learner = adaptive(BENT.logdensity, local, None, num_local_steps=3, num_flow_steps=0, history_size=512)

    @jax.jit
    def warm_up(key, positions):
        keys = jax.random.split(key, 150)
        return jax.lax.scan(lambda state, key: learner.step(key, state), learner.init(positions, key), keys)

    before = BENT.draws(11, 2000)
    state, info = warm_up(jax.random.key(12), before)
    rates = np.asarray(info.round.local_acceptance_rate)[-50:]
    assert abs(rates.mean() - 0.65) < 0.05
    assert np.all(np.isnan(info.round.flow_acceptance_rate)) and not info.training.is_training.any()
    z = invariance_z(BENT.functions, before, state.position)
    assert is_exact(z), z  # 2000 chains share one step size


def test_what_cannot_be_is_named():
    flow, params = flow_and_params("bent")
    with pytest.raises(ValueError, match="flow has no bijection"):
        neutra(blackjax.mala, flow._replace(bijection=None), params)
    tuning = Tuning(None, jnp.array(0.1), jnp.ones(2))
    with pytest.raises(ValueError, match="flow is None, but num_flow_steps is 5"):
        adaptive(bent_logdensity, blackjax.mala, None)
    with pytest.raises(ValueError, match="flow is None, but num_flow_steps is 2"):
        freeze(bent_logdensity, blackjax.mala, None, tuning, num_flow_steps=2)
    with pytest.raises(ValueError, match="refit_every"):
        adaptive(bent_logdensity, blackjax.mala, flow, refit_every=0)


# --- fit_flow ------------------------------------------------------------------------------------------------------


def test_gradients_gain_on_the_closed_form_fit_of_a_banana():
    """By most of what there is to gain: the truth's own log density on points that neither fit has seen."""
    draws, unseen = BENT.draws(13, 1500), BENT.draws(14, 4000)
    flow = real_nvp(BENT.position, num_layers=2, hidden=16, num_components=1, defensive=0.01)
    closed = fit_flow(0, flow, draws, num_train_steps=0)
    trained = fit_flow(0, flow, draws, num_train_steps=600)
    gap = jax.jit(lambda params: jnp.mean(jax.vmap(lambda x: bent_logdensity(x) - flow.log_prob(params, x))(unseen)))
    assert gap(closed) > 0.2
    assert -0.02 < gap(trained) < 0.4 * gap(closed)


def test_a_flow_is_not_fitted_to_too_few_points_or_nan():
    flow, _ = flow_and_params("bent")
    with pytest.raises(ValueError, match="positions holds 9 points"):
        fit_flow(0, flow, jnp.zeros((9, 2)))
    with pytest.raises(ValueError, match=r"positions\[x\] holds NaN"):
        fit_flow(0, flow, BENT.draws(1, 20).at[3, 1].set(jnp.nan))
    with pytest.raises(TypeError, match="dtype int"):
        fit_flow(0, flow, jnp.ones((20, 2), int))


def test_without_params_it_moves_in_the_space_of_the_samplers_own_flow():
    flow, params = flow_and_params("bent")
    positions = BENT.draws(5, 30)
    step_size = jnp.array(0.3)
    given, own = (
        freeze(BENT.logdensity, local, flow, Tuning(params, step_size, SCALES["bent"]), num_flow_steps=1)
        for local in (neutra(HMC, flow, params), neutra(HMC, flow))
    )
    key = jax.random.key(2)
    first, second = (jax.jit(kernel.step)(key, kernel.init(positions))[0].position for kernel in (given, own))
    assert np.array_equal(first, second)
    other = jax.tree.map(lambda leaf: leaf * 1.1, params)
    elsewhere = neutra(HMC, flow, other)
    kernel = freeze(BENT.logdensity, elsewhere, flow, Tuning(params, step_size, SCALES["bent"]), num_flow_steps=1)
    assert not np.array_equal(first, jax.jit(kernel.step)(key, kernel.init(positions))[0].position)


def test_a_kernel_in_the_flows_latent_space_does_not_search():
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2))
    wide = flowmcmc.normal(jnp.zeros(2), scale=5.0)
    options = {"num_chains": 20, "num_particles": 100, "num_warmup": 10, "num_samples": 10, "progress_bar": False}
    result = flowmcmc.sample(0, two_modes, wide, flow=flow, local=neutra(blackjax.mala, flow), **options)
    assert np.isfinite(result.trace.position).all()
