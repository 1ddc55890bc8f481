"""Whole default runs on targets whose answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest

import flowmcmc


@pytest.mark.slow
def test_the_default_run_follows_curved_valleys():
    def rosenbrock(x):
        return jnp.sum(-((x[::2] - 1) ** 2) / 20 - 5 * (x[1::2] - x[::2] ** 2) ** 2)

    wide = flowmcmc.normal(jnp.zeros(4), scale=20.0)
    result = flowmcmc.sample(0, rosenbrock, wide, progress_bar=False)
    assert result.settings["flow"] == "bent"
    assert flowmcmc.summary(result).problems == []
    # 100,000 draws, 10,000 or more of them effective: three standard errors
    u = result.trace.position[..., ::2]
    assert np.allclose(u.var((0, 1)), 10, rtol=0.05) and np.allclose(u.mean((0, 1)), 1, atol=0.1)
    assert np.allclose(result.trace.position[..., 1::2].var((0, 1)), 240.1, rtol=0.08)
