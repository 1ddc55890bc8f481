"""From traces to a DataTree: names, and what would be lost in it."""

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowmcmc
from flowmcmc.running.run import Trace


def traced(position):
    """The Trace of three rounds of local steps."""
    density = lambda position: -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(position))
    tuning = flowmcmc.Tuning((), jnp.array(0.1), jax.tree.map(lambda leaf: jnp.ones(leaf.shape[1:]), position))
    frozen = flowmcmc.freeze(density, blackjax.mala, None, tuning, num_local_steps=1, num_flow_steps=0)
    return flowmcmc.run(0, frozen, position, 3, progress_bar=False)[1]


def test_a_slash_in_a_name_is_a_dot_in_the_datatree(tmp_path):
    tree = flowmcmc.to_datatree(traced({"scope/a": jnp.zeros((4, 2)), "b": {"c/d": jnp.zeros(4)}}))
    assert {name: v.shape for name, v in tree.posterior.data_vars.items()} == {"b.c.d": (4, 3), "scope.a": (4, 3, 2)}
    tree.to_netcdf(tmp_path / "draws.nc")
    assert set(az.from_netcdf(tmp_path / "draws.nc").posterior.data_vars) == {"b.c.d", "scope.a"}


@pytest.mark.parametrize("names", [("chain", "b"), ("a/b", "a.b")])
def test_what_a_datatree_would_lose_is_refused(names):
    trace = Trace({name: np.zeros((3, 4)) for name in names}, traced({"x": jnp.zeros(4)}).info)
    with pytest.raises(ValueError, match=r"rename (it|one of them)\."):
        flowmcmc.to_datatree(trace)


def test_only_traces_make_a_datatree():
    for wrong in (3, np.zeros((3, 4))):
        with pytest.raises(TypeError, match=r"trace must be the Trace .* with the sampler of .freeze., got"):
            flowmcmc.to_datatree(wrong)
        with pytest.raises(TypeError, match=r"warmup must be the Trace .* with the sampler of .adaptive., got"):
            flowmcmc.to_datatree(None, warmup=wrong)
    with pytest.raises(TypeError, match=r"got a Trace of NoneType; for draws from elsewhere call arviz\.from_dict"):
        flowmcmc.to_datatree(Trace({"x": np.zeros((3, 4))}, None))
    with pytest.raises(TypeError, match="warmup must be the Trace"):
        flowmcmc.to_datatree(None, warmup=traced({"x": jnp.zeros(4)}))
