"""What a training loss reads, and the default one."""

import jax
import jax.numpy as jnp
import numpy as np
from support.helpers import plain_flow

from flowmcmc.adaptation.batch import Batch, forward_kl


def test_forward_kl_is_the_mean_of_minus_log_q_and_reads_positions_alone():
    positions = jax.random.normal(jax.random.key(0), (20, 2))
    flow = plain_flow(0.5, 2.0, dim=2)
    found = forward_kl(jax.random.key(1), (), Batch(positions, None, None), flow, None)
    np.testing.assert_allclose(found, -jnp.mean(jax.vmap(flow.log_prob, (None, 0))((), positions)), rtol=1e-12)
