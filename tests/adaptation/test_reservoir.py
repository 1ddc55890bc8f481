"""The memory of states fills, forgets slowly, and grows."""

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.adaptation import reservoir


def test_the_reservoir_fills_then_forgets_slowly_and_drops_nan():
    memory = reservoir.create(100, jnp.zeros(()))
    used = jnp.ones(50, bool)
    for step in range(2):
        memory = reservoir.insert(
            jax.random.uniform(jax.random.key(step), (50,)), memory, jnp.full(50, float(step)), used
        )
    assert sorted(np.asarray(memory.positions)) == [0.0] * 50 + [1.0] * 50
    memory = reservoir.insert(jax.random.uniform(jax.random.key(3), (50,)), memory, jnp.full(50, jnp.nan), used)
    assert memory.count == 100 and np.isfinite(memory.positions).all()
    memory = reservoir.insert(jax.random.uniform(jax.random.key(4), (50,)), memory, jnp.full(50, 2.0), used)
    left = np.bincount(np.asarray(memory.positions).astype(int), minlength=3)
    assert 20 < left[2] <= 50 and left[0] > 15 and left[1] > 15


def test_a_larger_reservoir_keeps_its_states_and_fills_the_new_slots():
    memory = reservoir.create(10, jnp.zeros(()))
    memory = reservoir.insert(
        jax.random.uniform(jax.random.key(0), (25,)), memory, jnp.arange(25.0), jnp.ones(25, bool)
    )
    larger = reservoir.enlarge(memory, 3)
    assert int(larger.count) == 10 and reservoir.capacity(larger) == 30
    assert np.array_equal(larger.positions[:10], memory.positions)
    larger = reservoir.insert(
        jax.random.uniform(jax.random.key(1), (20,)), larger, 100 + jnp.arange(20.0), jnp.ones(20, bool)
    )
    assert np.array_equal(larger.positions[10:], 100 + np.arange(20.0))
    assert np.array_equal(larger.positions[:10], memory.positions)
