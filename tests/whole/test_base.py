"""The contract of a flow is three functions: another library's fits."""

import jax
import jax.numpy as jnp
import pytest
from support.helpers import TARGETS, identity_error, invariance_z, is_exact, push, share_moved

from flowmcmc import (
    Flow,
    imh,
)


@pytest.fixture(scope="module")
def flowjax_flow():
    """Another library's flow behind the three functions."""
    eqx = pytest.importorskip("equinox")
    distributions, flows = pytest.importorskip("flowjax.distributions"), pytest.importorskip("flowjax.flows")
    paramax = pytest.importorskip("paramax")
    whole = flows.coupling_flow(
        jax.random.key(0), base_dist=distributions.Normal(jnp.zeros(2)), flow_layers=2, nn_width=8, invert=False
    )
    _, static = eqx.partition(whole, eqx.is_inexact_array)

    def init(key, position):
        leaves, treedef = jax.tree.flatten(eqx.partition(whole, eqx.is_inexact_array)[0])
        keys = jax.random.split(key, len(leaves))
        noisy = [x + 0.3 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys)]
        return jax.tree.unflatten(treedef, noisy)

    def whole_again(params):
        return paramax.unwrap(eqx.combine(params, static))

    return Flow(
        init,
        lambda key, params: whole_again(params).sample_and_log_prob(key),
        lambda params, x: whole_again(params).log_prob(x),
    )


def test_another_librarys_flow_fits(flowjax_flow):
    target = TARGETS["mixture"]
    params = flowjax_flow.init(jax.random.key(1), target.position)
    before = target.draws(61)
    assert identity_error(target.logdensity, flowjax_flow, params, before[:500]).max() < 1e-10
    after = push(lambda p: imh(target.logdensity, flowjax_flow, p), 3)(jax.random.key(62), params, before)
    assert is_exact(invariance_z(target.functions, before, after))
    assert share_moved(before, after) > 0.1
