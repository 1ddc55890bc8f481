"""A flow that goes on learning while it draws is not exact; what it has learned, frozen, is."""

import blackjax
import jax
import jax.numpy as jnp
import optax
from support.helpers import NUM_DRAWS, Target, invariance_z, is_exact, share_moved

from flowmcmc import Tuning, adaptive, freeze, gaussian_mixture


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
