"""Drawing until targets are met, or time is up."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support.runs import tiny_run

import flowmcmc
from flowmcmc.running.run import Trace

QUIET = {"progress_bar": False}


@pytest.fixture(scope="module")
def result():
    return tiny_run(num_samples=20)


def unlike(result, monkeypatch, num, memory):
    """The result with made-up draws: of coordinate 0 each is `memory` times the last one and fresh noise, from starts
    far apart; of coordinate 1 they are independent. `num` of them are there at first."""
    chains, rng = 20, np.random.default_rng(0)
    slow = np.empty((20_000, chains))
    slow[0] = np.linspace(-2, 2, chains)
    noise = np.sqrt(1 - memory**2) * rng.normal(size=slow.shape)
    for index in range(1, len(slow)):
        slow[index] = memory * slow[index - 1] + noise[index]
    draws = np.stack([slow, rng.normal(size=slow.shape)], axis=-1)
    infos = jax.tree.map(lambda leaf: np.broadcast_to(leaf[:1], (len(draws), *leaf.shape[1:])), result.trace.info)

    def first(num):
        trace = Trace(draws[:num], jax.tree.map(lambda leaf: leaf[:num], infos))
        return replace(result, trace=trace, state=result.state._replace(round=num))

    monkeypatch.setattr(type(result), "more", lambda self, num, **_: first(self.state.round + num))
    return first(num)


@pytest.mark.parametrize(
    ("targets", "memory"),
    [({"min_ess": 1000.0, "max_rhat": 100.0}, 0.95), ({"min_ess": 1.0, "max_rhat": 1.01}, 0.98)],
    ids=["ess", "rhat"],
)
def test_the_worst_coordinate_decides(result, monkeypatch, targets, memory):
    import arviz as az

    early = unlike(result, monkeypatch, 100, memory)
    reads = lambda run: (az.ess(run.datatree).x.values, az.rhat(run.datatree).x.values)
    meets = lambda ess, rhat: (ess >= targets["min_ess"]) & (rhat <= targets["max_rhat"])
    assert meets(*reads(early)).tolist() == [False, True]  # the best coordinate is good enough from the start
    done = flowmcmc.draw_until(early, **targets, **QUIET)
    assert done.settings["stopped"] == "targets met" and meets(*reads(done)).all()


def test_time_ends_it(result):
    done = flowmcmc.draw_until(result, min_ess=1e12, max_seconds=0.5, **QUIET)
    assert done.settings["stopped"] == "out of time"
    assert len(done.trace.position) > 20


def test_draws_read_from_a_folder_say_nothing_of_the_time(result):
    fast = replace(result, settings=result.settings | {"sampling_seconds": 1e-6})
    blocks, now = [], [0.0]
    draw = type(result).more

    def slow(self, num_samples, **options):
        blocks.append(num_samples)
        now[0] += 0.01 * num_samples
        return draw(self, num_samples, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(result), "more", slow)
        # a clock of its own: how fast the machine is does not matter
        patch.setattr(sys.modules["flowmcmc.more.until"], "time", SimpleNamespace(perf_counter=lambda: now[0]))
        flowmcmc.draw_until(fast, min_ess=1e12, max_seconds=2.5, **QUIET)
    assert blocks[0] == 100 and max(blocks[1:]) <= 150 and now[0] < 10


def test_a_slow_density_gets_few_draws(result):
    slow = replace(result, settings=result.settings | {"sampling_seconds": 200.0})  # ten seconds each
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(result), "more", lambda self, n, **_: pytest.fail(f"{n} draws") if n > 3 else self)
        assert flowmcmc.draw_until(slow, min_ess=1e12, max_seconds=30, **QUIET).settings["stopped"] == "interrupted"


def test_interruption_ends_it(result, interrupt):
    interrupt(2)
    with pytest.warns(UserWarning, match="interrupted after"):
        done = flowmcmc.draw_until(result, min_ess=1e12, max_seconds=100, **QUIET)
    assert done.settings["stopped"] == "interrupted" and done.settings["partial"] == 1


def test_bad_targets_are_named(result):
    with pytest.raises(ValueError, match="max_rhat must be above 1"):
        flowmcmc.draw_until(result, max_rhat=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        flowmcmc.draw_until(result, max_seconds=0)
