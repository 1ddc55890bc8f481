"""Composed samplers equal their parts taken by hand; BlackJAX's kernels fit unchanged."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.helpers import TARGETS, invariance_z, is_exact, push_ensemble, share_moved
from support.helpers import flow_params as all_params
from support.helpers import small_flow as flow_for

from flowmcmc import cycle, imh, vmap_chains
from flowmcmc.base import num_chains

TARGET = TARGETS["dict"]
DIM = 4


def same(first, second):
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.allclose(a, b, rtol=1e-12, atol=0) for a, b in leaves)


def test_cycle_equals_by_hand():
    flow, params, position = flow_for("dict"), all_params("dict")["trained"], TARGET.draw(jax.random.key(0))
    mala, jump = blackjax.mala(TARGET.logdensity, 0.2), imh(TARGET.logdensity, flow, params)
    composed = cycle((mala, 3), (jump, 2))
    key = jax.random.key(1)
    state = jax.jit(composed.init)(position)
    assert same(state.position, position)
    new_state, info = jax.jit(composed.step)(key, state)

    infos = []
    keys = iter(jax.random.split(key, 1 + 3 + 1 + 2))
    for part, num_steps in [(mala, 3), (jump, 2)]:
        part_state = jax.jit(part.init)(position, next(keys))
        infos.append([])
        step = jax.jit(part.step)
        for _ in range(num_steps):
            part_state, part_info = step(next(keys), part_state)
            infos[-1].append(part_info)
        position = part_state.position
    assert same(new_state.position, position)
    for found, by_hand in zip(info.parts, infos, strict=True):
        assert same(found, jax.tree.map(lambda *leaves: np.stack(leaves), *by_hand))


def test_vmap_chains_equals_by_hand():
    kernel = blackjax.mala(TARGET.logdensity, 0.2)
    ensemble = vmap_chains(kernel)
    positions = TARGET.draws(2, 3)
    assert num_chains(positions) == 3
    key_init, key_step = jax.random.split(jax.random.key(3))
    init, step = jax.jit(kernel.init), jax.jit(kernel.step)
    state = jax.jit(ensemble.init)(positions, key_init)
    assert same(state, jax.jit(ensemble.init)(positions))  # mala needs no key
    new_state, info = jax.tree.map(np.asarray, jax.jit(ensemble.step)(key_step, state))
    positions = jax.tree.map(np.asarray, positions)
    init_keys, step_keys = jax.random.split(key_init, 3), jax.random.split(key_step, 3)
    for chain in range(3):
        one = init(jax.tree.map(lambda x: x[chain], positions), init_keys[chain])  # noqa: B023
        expected = step(step_keys[chain], one)
        assert same(jax.tree.map(lambda x: x[chain], (new_state, info)), expected)  # noqa: B023


def test_vmap_chains_gives_each_chain_a_key():
    """Kernels that draw something at the start must not draw the same for all chains."""
    kernel = blackjax.mclmc(TARGET.logdensity, 1.0, 0.1)
    positions = jax.tree.map(lambda x: np.stack([x] * 30), TARGET.draw(jax.random.key(0)))
    state = jax.jit(vmap_chains(kernel).init)(positions, jax.random.key(1))
    assert len(np.unique(state.momentum["a"])) == 30
    kernel = vmap_chains(imh(TARGET.logdensity, flow_for("dict"), all_params("dict")["trained"]))
    new_state, _ = jax.jit(lambda key: kernel.step(key, kernel.init(positions)))(jax.random.key(2))
    assert len(np.unique(new_state.position["a"])) > 1


def test_a_cycle_inside_a_cycle():
    mala = blackjax.mala(TARGET.logdensity, 0.2)
    outer = cycle((cycle((mala, 2)), 3), (mala, 1))
    _, info = jax.jit(lambda key: outer.step(key, outer.init(TARGET.draw(jax.random.key(1)))))(jax.random.key(0))
    assert info.parts[0].parts[0].acceptance_rate.shape == (3, 2)
    assert info.parts[1].acceptance_rate.shape == (1,)


def test_bad_cycles_raise():
    with pytest.raises(ValueError, match="cycle"):
        cycle()
    with pytest.raises(ValueError, match="num_steps"):
        cycle((blackjax.mala(TARGET.logdensity, 0.1), 0))


ONES = jnp.ones(DIM)
FACTORIES = {
    "mala": partial(blackjax.mala, step_size=0.2),
    "hmc": partial(blackjax.hmc, step_size=0.3, inverse_mass_matrix=ONES, num_integration_steps=3),
    "nuts": partial(blackjax.nuts, step_size=0.4, inverse_mass_matrix=ONES, max_num_doublings=3),
    "barker": partial(blackjax.barker, step_size=0.4),
    "random walk": partial(blackjax.additive_step_random_walk.normal_random_walk, sigma=0.5 * ONES),
    "ghmc": partial(blackjax.ghmc, step_size=0.2, momentum_inverse_scale=ONES, alpha=0.5, delta=0.1),
    "slice": blackjax.slice_sampling,
    "mclmc": partial(blackjax.mclmc, L=1.0, step_size=0.1),
}
UNADJUSTED = {"mclmc"}


@pytest.mark.parametrize("name", FACTORIES)
def test_blackjax_kernels_run_unchanged_beside_imh(name):
    def make(params):
        jump = imh(TARGET.logdensity, flow_for("dict"), params)
        return vmap_chains(cycle((FACTORIES[name](TARGET.logdensity), 2), (jump, 1)))

    before = TARGET.draws(71, 4000)
    after = push_ensemble(make, 2)(jax.random.key(72), all_params("dict")["trained"], before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert share_moved(before, after) > 0.5
    if name not in UNADJUSTED:
        z = invariance_z(TARGET.functions, before, after)
        assert is_exact(z), z


def test_elliptical_slice_runs_beside_imh():
    """It takes a log likelihood and a normal prior over vectors."""
    prior = {"mean": jnp.zeros(2), "cov": jnp.eye(2)}
    target = TARGETS["mixture"]
    likelihood = lambda x: target.logdensity(x) + 0.5 * jnp.sum(x**2)

    def make(params):
        jump = imh(target.logdensity, flow_for("mixture"), params)
        return vmap_chains(cycle((blackjax.elliptical_slice(likelihood, **prior), 2), (jump, 1)))

    before = target.draws(73, 4000)
    after = push_ensemble(make, 2)(jax.random.key(74), all_params("mixture")["trained"], before)
    assert is_exact(invariance_z(target.functions, before, after))
    assert share_moved(before, after) > 0.9
