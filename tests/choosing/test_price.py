"""How good a flow is, from its rounds, and which one is worth its price."""

from types import SimpleNamespace

import numpy as np
import pytest

from flowmcmc.choosing.price import (
    BlockStats,
    Trial,
    block_stats,
    choose,
    efficiency,
    is_settled,
    is_sufficient,
    production_moves,
)
from flowmcmc.running.run import Trace


def trace_of(accepted, rates, loss):
    rounds = SimpleNamespace(num_flow_accepted=accepted, flow_acceptance_rate=rates)
    return Trace(None, SimpleNamespace(round=rounds, training=SimpleNamespace(heldout_loss=loss)))


def test_the_second_half_is_judged():
    accepted = np.array([[0, 0]] * 4 + [[1, 0], [0, 0], [1, 1], [1, 1]])
    rates = np.array([[0.0, 0.0]] * 4 + [[0.5, 0.7]] * 4)
    rate, wait, _, gain, loss = block_stats(trace_of(accepted, rates, np.linspace(9.0, 2.0, 8)))
    assert rate == pytest.approx(0.6) and wait == 2 and gain == pytest.approx(3.0) and loss == 2.0


@pytest.mark.parametrize(("share", "num_stuck", "is_even"), [(0.2, 0, True), (0.8, 1, False), (0.03, 0, False)])
def test_rejected_often_is_enough_if_no_chain_is_stuck(share, num_stuck, is_even):
    accepted = np.random.default_rng(0).random((140, 100)) < share
    accepted[:, :num_stuck] = False
    assert block_stats(trace_of(accepted.astype(int), np.full((140, 100), 0.05), np.zeros(140))).is_even == is_even


def test_no_rounds_are_no_reason_to_go_on():
    empty = trace_of(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    assert block_stats(empty) == BlockStats(0.0, 0, False, 0.0, np.inf)


def trial(rate, wait=0, worst_end=1.0, price=1.0):
    return Trial(BlockStats(rate, wait, False, 0.0, 0.0), worst_end, price)


def test_waits_and_ends_that_are_cut_off_count_against_a_flow():
    assert efficiency(trial(1.0)) == 1.0 and efficiency(trial(0.5)) == pytest.approx(1 / 3)
    assert efficiency(trial(1.0, wait=30)) == 0.5
    assert efficiency(trial(1.0, worst_end=0.2)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("trials", "taken"),
    [
        ([trial(0.3), trial(0.4, price=2.0)], 0),  # dearer, but not twice as good
        ([trial(0.3), trial(0.6, price=2.0)], 1),
        ([trial(0.3), trial(0.31)], 1),  # no dearer
        ([trial(0.3), trial(0.29)], 0),
        ([trial(0.1), trial(0.5, price=2.0), trial(0.6, price=3.0)], 1),
        ([trial(0.9, wait=1000), trial(0.6, price=2.0)], 1),
    ],
)
def test_a_dearer_flow_must_be_worth_its_price(trials, taken):
    assert choose(trials) == taken


@pytest.mark.parametrize(
    ("stats", "worst_end", "is_fitted", "expected"),
    [
        (BlockStats(0.5, 10, False, 0.0, 0.0), 1.0, False, True),
        (BlockStats(0.5, 20, False, 0.0, 0.0), 1.0, False, False),
        (BlockStats(0.5, 20, False, 0.0, 0.0), 1.0, True, True),
        (BlockStats(0.2, 40, True, 0.0, 0.0), 1.0, True, True),
        (BlockStats(0.2, 40, True, 0.0, 0.0), 1.0, False, False),
        (BlockStats(0.9, 0, True, 0.0, 0.0), 0.3, True, False),
    ],
)
def test_when_no_dearer_flow_need_be_tried(stats, worst_end, is_fitted, expected):
    assert is_sufficient(stats, worst_end, is_fitted=is_fitted) == expected


def test_many_accepted_proposals_make_short_rounds_with_few_local_steps():
    good = trial(0.9)._replace(local_cost=2.0)  # local steps take twice the evaluations of five proposals
    moves = production_moves(good, 5)
    assert moves.num_flow_steps == 1
    # a quarter of an evaluation a round, on average
    assert moves.local_share * 10 == pytest.approx(0.25)
    assert production_moves(trial(0.45)._replace(local_cost=2.0), 5).num_flow_steps == 2


def test_where_some_chain_waits_rounds_stay_long_with_local_steps_in_a_quarter_of_them():
    moves = production_moves(trial(0.9, wait=6)._replace(local_cost=2.0), 5)
    assert moves.num_flow_steps == 5 and moves.local_share == 0.25


@pytest.mark.parametrize(
    ("doubtful", "local_cost"),
    [(trial(0.9, wait=16), 2.0), (trial(0.9, worst_end=0.3), 2.0), (trial(0.2), 2.0), (trial(0.9), 0.0)],
    ids=["waits", "ends", "rare", "free"],
)
def test_where_anything_speaks_against_it_rounds_stay_as_in_warm_up(doubtful, local_cost):
    moves = production_moves(doubtful._replace(local_cost=local_cost), 5)
    assert moves.num_flow_steps == 5 and moves.local_share == 1.0


def settling(rate=0.8, num_rounds=60, gain=0.0):
    accepted = np.random.default_rng(0).random((num_rounds, 100)) < min(1.0, 1.5 * rate)
    trace = trace_of(accepted.astype(int), np.full((num_rounds, 100), rate), np.linspace(gain, 0.0, num_rounds))
    trace.info.step_size = np.zeros(num_rounds)
    return trace


def test_a_block_ends_before_its_time_only_if_all_is_well():
    assert is_settled(settling(), 1.0)
    assert not is_settled(settling(), 0.3) and not is_settled(settling(rate=0.5), 1.0)
    assert not is_settled(settling(gain=1.0), 1.0)
    waiting = settling()
    waiting.info.round.num_flow_accepted[:, 3] = 0
    assert not is_settled(waiting, 1.0)
