"""What a run was asked for: which flows it may take, and that bad options are found before anything takes long."""

import blackjax
import jax
import jax.numpy as jnp
import optax
import pytest
from support.targets import two_modes

import flowmcmc
from flowmcmc.choosing.request import check_request, check_target
from flowmcmc.losses import forward_kl, reverse_kl

KERNEL = {"num_local_steps": 1, "num_flow_steps": 5, "flow_kernel": flowmcmc.imh}
LEARNING = {
    "num_train_steps": 20,
    "batch_size": 256,
    "history_size": None,
    "loss": forward_kl,
    "optimizer": None,
    "target_acceptance_rate": 0.65,
    "patience": 5,
}
COUNTS = {"num_chains": 10, "num_particles": 100, "num_samples": 10, "num_warmup": 10, "checkpoint_every": 10}
STARTS = jnp.zeros((4, 2))


def request(positions=STARTS, *, local=None, flow=None, mesh=None, counts=COUNTS, **options):
    kernel, learning = ({k: options.get(k, v) for k, v in known.items()} for known in (KERNEL, LEARNING))
    target = check_target(jax.random.key(0), two_modes, positions, counts, mesh)
    return check_request(target, local, flow, kernel, learning, counts)


def names(**options):
    return [candidate.name for candidate in request(**options).candidates]


def test_the_flows_that_a_run_may_take():
    assert names() == ["mixture", "marginals", "funnel", "bent", "layers", "layers on a mixture"]
    assert names(flow=flowmcmc.real_nvp(jnp.zeros(2), num_layers=2, hidden=8)) == ["given"]
    assert names(num_flow_steps=0) == ["mixture"]


@pytest.mark.parametrize("options", [{"optimizer": optax.adam(1e-3)}, {"loss": reverse_kl}])
def test_what_says_how_to_train_asks_for_flows_that_are_trained(options):
    assert names(**options) == ["layers", "layers on a mixture"]


def test_where_chains_start():
    given = request().target
    assert given.start is None and given.num_chains == 4 and given.position.shape == (2,)
    wide = request(flowmcmc.normal(jnp.zeros(3), scale=2.0)).target
    assert wide.positions is None and wide.num_chains == 10 and wide.position.shape == (3,)


def test_the_local_kernel_is_the_users_or_the_candidates():
    mine = request(local=blackjax.mala)
    default = request()
    sampler = mine.make_frozen(mine.candidates[0])
    assert sampler.step.func != default.make_frozen(default.candidates[0]).step.func
    again = request(local=blackjax.mala)
    assert jax.tree.structure(sampler.step) == jax.tree.structure(again.make_frozen(again.candidates[0]).step)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"counts": COUNTS | {"num_samples": 0}}, "num_samples"),
        ({"local": 3}, "local"),
        ({"flow": 3}, "flow"),
        ({"batch_size": 0}, "batch_size"),
        ({"positions": jnp.zeros((0, 2))}, "no chains"),
    ],
)
def test_bad_options_are_found_first(options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        request(**options)
