"""A kernel in a flow's latent space leaves the target invariant, but not without its log determinant."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import helpers
from support.bent import BENT, bent_logdensity, flow_and_params, target_of
from support.helpers import TARGETS, invariance_z, is_exact, share_moved
from support.targets import two_modes

import flowmcmc
from flowmcmc import Bijection, Flow, Tuning, adaptive, freeze, neutra

HMC = partial(blackjax.hmc, num_integration_steps=3)
SCALES = {
    "bent": jnp.array([0.5, 2.0]),
    "dict": {"a": jnp.array(2.0), "b": jnp.array([1.0, 0.5]), "c": jnp.ones((1, 1))},
}


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


def test_without_params_it_moves_in_the_space_of_the_samplers_own_flow():
    flow, params = flow_and_params("bent")
    positions = BENT.draws(5, 30)

    @jax.jit
    def moved(params, *given):
        tuning = Tuning(params, jnp.array(0.3), SCALES["bent"])
        kernel = freeze(BENT.logdensity, neutra(HMC, flow, *given), flow, tuning, num_flow_steps=1)
        return kernel.step(jax.random.key(2), kernel.init(positions))[0].position

    given, own = moved(params, params), moved(params)
    assert np.array_equal(given, own)
    other = jax.tree.map(lambda leaf: leaf * 1.1, params)
    assert not np.array_equal(given, moved(params, other))


def test_a_kernel_in_the_flows_latent_space_does_not_search():
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
    wide = flowmcmc.normal(jnp.zeros(2), scale=5.0)
    options = {"num_chains": 20, "num_particles": 100, "num_warmup": 10, "num_samples": 10, "progress_bar": False}
    result = flowmcmc.sample(0, two_modes, wide, flow=flow, local=neutra(blackjax.mala, flow), **options)
    assert np.isfinite(result.trace.position).all()
