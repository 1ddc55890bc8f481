"""The local step size is adapted to the acceptance asked for."""

import blackjax
import jax
import numpy as np
from support.bent import BENT, flow_and_params
from support.helpers import invariance_z, is_exact

from flowmcmc import adaptive, neutra


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
