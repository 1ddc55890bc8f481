"""The driver: resumed is unbroken, same seed same draws, one compilation, interruption keeps what there is."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.helpers import plain_flow
from support.targets import normal, two_modes

import flowmcmc
from flowmcmc.running.run import fetch_rows, keep_all, keep_info

STARTS = jax.random.normal(jax.random.key(1), (10, 2)) + jnp.where(jnp.arange(10) % 2 == 0, 3.0, -3.0)[:, None]
FLOW = flowmcmc.real_nvp(STARTS[0], num_layers=1, hidden=2, num_components=2)
QUIET = {"progress_bar": False}
ROOM = {"chunk_size": 12}  # one program for any number of rounds up to this

PLAIN = plain_flow(0.0, 2.0, dim=2)  # how often a density is traced does not depend on the flow


def sampler(logdensity_fn=two_modes, flow=FLOW):
    options = {"num_local_steps": 2, "num_flow_steps": 2, "num_train_steps": 3, "batch_size": 32, "history_size": 128}
    return flowmcmc.adaptive(logdensity_fn, blackjax.mala, flow, **options)


ADAPTIVE = sampler()


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def unbroken():
    return flowmcmc.run(7, ADAPTIVE, STARTS, 12, **ROOM, **QUIET)


def test_resumed_is_unbroken_bit_for_bit(unbroken):
    state, trace = unbroken
    half, first = flowmcmc.run(7, ADAPTIVE, STARTS, 5, **ROOM, **QUIET)
    assert half.round == 5
    again, second = flowmcmc.run(7, ADAPTIVE, half, 7, **ROOM, **QUIET)
    assert again.round == 12
    assert_equal(again, state)
    assert_equal(jax.tree.map(lambda *x: np.concatenate(x), first, second), trace)


def test_chunks_do_not_matter(unbroken):
    state, trace = flowmcmc.run(7, ADAPTIVE, STARTS, 12, chunk_size=3, **QUIET)
    assert_equal((state, trace), unbroken)


def test_another_seed_gives_other_draws(unbroken):
    _, trace = flowmcmc.run(8, ADAPTIVE, STARTS, 12, **ROOM, **QUIET)
    assert not np.array_equal(trace.position, unbroken[1].position)


@pytest.mark.parametrize("algorithm", ["adaptive", "freeze"])
def test_the_density_is_traced_as_often_for_many_rounds_as_for_few(algorithm):
    counts = []
    for num_rounds in (3, 40):
        traced = 0

        def counting(x):
            nonlocal traced
            traced += 1
            return normal(x)

        chosen = sampler(counting, PLAIN)
        if algorithm == "freeze":
            tuning = flowmcmc.Tuning((), jnp.array(0.1), jnp.ones(2))
            chosen = flowmcmc.freeze(counting, blackjax.mala, PLAIN, tuning, num_local_steps=2, num_flow_steps=2)
        state, _ = flowmcmc.run(0, chosen, STARTS, num_rounds, chunk_size=8, **QUIET)
        once = traced
        flowmcmc.run(0, chosen, state, num_rounds, chunk_size=8, **QUIET)
        assert traced == once, "a second run of the same sampler traced the density again"
        counts.append(once)
    assert counts[0] == counts[1] <= 12


def test_production_never_adapts():
    tuning = jax.jit(ADAPTIVE.init)(STARTS, jax.random.key(0)).tuning
    frozen = flowmcmc.freeze(two_modes, blackjax.mala, FLOW, tuning)
    state, _ = flowmcmc.run(0, frozen, STARTS, 5, **QUIET)
    assert_equal(state.sampler.tuning, tuning)


def test_interruption_returns_the_rounds_done(interrupt, monkeypatch, unbroken):
    interrupt(3)
    with pytest.warns(UserWarning, match="interrupted after 3 of 12 rounds"):
        state, trace = flowmcmc.run(7, ADAPTIVE, STARTS, 12, **ROOM, **QUIET)
    monkeypatch.undo()
    assert state.round == len(trace.position) == 3
    _, rest = flowmcmc.run(7, ADAPTIVE, state, 9, **ROOM, **QUIET)
    assert_equal(np.concatenate([trace.position, rest.position]), unbroken[1].position)


def test_infos_alone_can_be_kept():
    algorithm = flowmcmc.vmap_chains(blackjax.mala(normal, 0.1))
    _, whole = flowmcmc.run(7, algorithm, STARTS, 12, **QUIET)
    _, trace = flowmcmc.run(7, algorithm, STARTS, 12, keep=keep_info, **QUIET)
    assert trace.position is None
    assert_equal(trace.info, whole.info)
    assert keep_all is not keep_info


def test_any_blackjax_algorithm_can_be_driven():
    algorithm = flowmcmc.vmap_chains(blackjax.mala(normal, 0.1))
    state, trace = flowmcmc.run(0, algorithm, STARTS, 4, **QUIET)
    assert trace.position.shape == (4, 10, 2)
    assert trace.info.is_accepted.shape == (4, 10)
    np.testing.assert_array_equal(state.position, trace.position[-1])


def test_pieces_do_not_keep_the_memory_of_their_chunk():
    kept = {"x": jnp.zeros((100, 1000))}
    piece = fetch_rows(kept, 3)["x"]
    assert piece.shape == (3, 1000) and piece.base is None
