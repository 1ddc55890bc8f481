"""A run brings home the rounds that were drawn and no more, while the next ones run."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowmcmc
from flowmcmc.running import run as running


@pytest.fixture
def fetched(monkeypatch):
    """Pretends that memory is a device's own; the list holds how many rows were cut out of a chunk's room."""
    rows, cut_rows = [], running.cut_rows

    def spy(kept, first, *, num_rows):
        rows.append(num_rows)
        return cut_rows(kept, first, num_rows=num_rows)

    monkeypatch.setattr(running.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(running, "cut_rows", spy)
    return rows


@pytest.mark.parametrize("size", [1, 2, 37, 99, 100])
def test_rows_come_home_in_few_pieces(fetched, size):
    room = {"a": jnp.arange(300.0).reshape(100, 3), "b": jnp.arange(100)}
    found = running.fetch_rows(room, size)
    np.testing.assert_array_equal(found["a"], np.arange(300.0).reshape(100, 3)[:size])
    np.testing.assert_array_equal(found["b"], np.arange(size))
    assert sum(fetched) == (0 if size == 100 else size) and len(fetched) <= 7


def test_a_run_fetches_as_many_rows_as_it_draws(fetched):
    algorithm = flowmcmc.vmap_chains(blackjax.mala(lambda x: -0.5 * jnp.sum(x**2), 0.5))
    keep = lambda state, info: state.position
    _, found = flowmcmc.run(0, algorithm, jnp.zeros((4, 2)), 45, keep=keep, progress_bar=False)
    assert found.shape == (45, 4, 2) and sum(fetched) == 45


def test_pieces_of_any_size_are_the_same_draws():
    algorithm = flowmcmc.vmap_chains(blackjax.mala(lambda x: -0.5 * jnp.sum(x**2), 0.5))
    keep = lambda state, info: state.position
    draws = [
        flowmcmc.run(0, algorithm, jnp.zeros((4, 2)), 45, keep=keep, chunk_size=size, progress_bar=False)[1]
        for size in (1, 7, 45)
    ]
    for other in draws[1:]:
        np.testing.assert_array_equal(draws[0], other)


def test_ctrl_c_keeps_the_chunks_that_run(monkeypatch):
    algorithm = flowmcmc.vmap_chains(blackjax.mala(lambda x: -0.5 * jnp.sum(x**2), 0.5))
    keep = lambda state, info: state.position
    whole = flowmcmc.run(0, algorithm, jnp.zeros((4, 2)), 60, keep=keep, progress_bar=False)[1]
    fetch_rows, calls = running.fetch_rows, []

    def interrupted(kept, size):
        calls.append(size)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fetch_rows(kept, size)

    monkeypatch.setattr(running, "fetch_rows", interrupted)
    with pytest.warns(UserWarning, match="interrupted after"):
        state, some = flowmcmc.run(0, algorithm, jnp.zeros((4, 2)), 60, keep=keep, progress_bar=False)
    assert state.round == len(some) == sum(calls[:2]) + sum(calls[3:]) > sum(calls[:2])
    np.testing.assert_array_equal(some, whole[: len(some)])
    monkeypatch.setattr(running, "fetch_rows", fetch_rows)
    _, rest = flowmcmc.run(0, algorithm, state, 60 - len(some), keep=keep, progress_bar=False)
    np.testing.assert_array_equal(np.concatenate([some, rest]), whole)
    assert jax.tree.all(jax.tree.map(np.array_equal, rest, whole[len(some) :]))
