"""A ridge is found, and followed where no state was."""

import jax
import jax.numpy as jnp
import numpy as np
from support.curved import misfit, valley, valley_log_prob

from flowmcmc import bent_mixture, gaussian_mixture


def test_a_ridge_is_fitted_and_followed_where_no_state_was():
    rows = jax.vmap(valley)(jax.random.split(jax.random.key(3), 40_000))
    seen, rest = rows[rows[:, 1] < 1.5], rows[rows[:, 1] > 2]
    train, heldout, fresh = seen[:30_000], seen[30_000:31_000], seen[31_000:]

    both = jnp.concatenate([fresh, rest])
    params, gap = misfit(bent_mixture(rows[0]), train, heldout, valley_log_prob, both)
    near, far = gap[: len(fresh)], gap[len(fresh) :]
    order = [int(driver) for driver in params.warp.drivers]
    assert order.index(1) < order.index(3) < order.index(0)  # u, w, v
    assert np.abs(near).mean() < 0.2
    # beyond all states it knows where the ridge is, within some of its widths, but not how much mass there is
    _, straight = misfit(gaussian_mixture(rows[0], num_components=8), train, heldout, valley_log_prob, rest)
    assert np.median(far) < 9 < 15 < np.median(straight)
