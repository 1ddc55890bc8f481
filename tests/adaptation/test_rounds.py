"""Rounds with everything learned held fixed: what they count."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.rounds import HALF_NORMAL, WALL_FLOW, halved

from flowmcmc import Tuning, freeze


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
