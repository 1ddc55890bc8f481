"""What a run is, in JSON: runs that differ are described differently."""

import json
from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from support.targets import normal

import flowmcmc
from flowmcmc.running.describe import describe_flow, describe_option, describe_run


def test_options_by_their_names():
    assert [describe_option(value) for value in (None, 3, 0.5, True, "x")] == ["default", 3, 0.5, True, "x"]
    assert describe_option(partial(flowmcmc.isir, num_proposals=4)).endswith("isir(num_proposals=4)")
    assert describe_option(blackjax.mala) == "blackjax.mcmc.mala.as_top_level_api"


def test_a_flow_by_the_shapes_of_its_parameters():
    position = jnp.zeros(2)
    few, many = (flowmcmc.gaussian_mixture(position, num_components=n) for n in (2, 3))
    assert describe_flow(None, position) == "default"
    assert describe_flow(few, position) != describe_flow(many, position) and "(2, 2, 2)" in describe_flow(few, position)


def test_key_density_and_starts_tell_runs_apart():
    starts = np.ones((6, 2))
    given = (jax.random.key(0), normal, starts, {"num_warmup": 3})
    others = [
        (jax.random.key(1), *given[1:]),
        (given[0], lambda x: 2 * normal(x), *given[2:]),
        (*given[:2], starts + 1, given[3]),
        (*given[:3], {"num_warmup": 4}),
    ]
    texts = {json.dumps(describe_run(*arguments), sort_keys=True) for arguments in [given, *others]}
    assert len(texts) == 5 and json.dumps(describe_run(*given), sort_keys=True) in texts
