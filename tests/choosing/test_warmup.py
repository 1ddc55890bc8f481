"""Which flow `sample` takes when none is given, and what goes from one to the next."""

import sys

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from support.targets import funnel, two_modes

import flowmcmc
from flowmcmc.adaptation.frozen import production
from flowmcmc.adaptation.rounds import Tuning, check_steps
from flowmcmc.choosing import warmup
from flowmcmc.choosing.candidates import LOCAL, Candidate, Outlook, default_candidates
from flowmcmc.choosing.price import BlockStats, all_moves
from flowmcmc.choosing.warmup import WarmUpPlan, warm_up
from flowmcmc.ground.budget import Budget
from flowmcmc.running.run import keep_info

OPTIONS = {"num_warmup": 40, "num_samples": 20, "num_local_steps": 1, "num_flow_steps": 1, "progress_bar": False}
QUIET = {"progress_bar": False}


def starts(num: int = 20):
    sign = jnp.where(jnp.arange(num) % 2 == 0, 1.0, -1.0)[:, None]
    return 3 * sign + jax.random.normal(jax.random.key(5), (num, 2))


def small_candidates(position):
    layers = flowmcmc.real_nvp(position, num_layers=1, hidden=2, num_components=1)
    mixture = Candidate("mixture", flowmcmc.gaussian_mixture(position, num_components=2), LOCAL)
    return [mixture, Candidate("layers", layers, flowmcmc.neutra(blackjax.mala, layers), price=10.0)]


@pytest.mark.parametrize("candidates", [small_candidates, pytest.param(default_candidates, marks=pytest.mark.slow)])
def test_a_mixture_that_fits_is_enough(monkeypatch, candidates):
    monkeypatch.setattr(sys.modules["flowmcmc.choosing.request"], "default_candidates", candidates)
    result = flowmcmc.sample(0, two_modes, starts(), **OPTIONS)
    assert result.settings["flow"] == "mixture"
    assert result.settings["num_warmup"] == 14 == result.datatree.warmup_history.sizes["round"]
    assert result.params.layers is None


def set_numbers(monkeypatch, **numbers):
    """Numbers of the policy, wherever they are used."""
    for name, value in numbers.items():
        for module in [m for key, m in sys.modules.items() if key.startswith("flowmcmc.choosing") and hasattr(m, name)]:
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize(("min_gain", "taken"), [(0.0, "layers"), (np.inf, "mixture")])
def test_layers_are_tried_when_it_does_not_and_taken_if_they_pay(monkeypatch, min_gain, taken):
    set_numbers(monkeypatch, ENOUGH=1.1, OFTEN=1.1, STILL_LEARNING=np.inf, MIN_EFFICIENCY_RATIO=min_gain)
    monkeypatch.setattr(sys.modules["flowmcmc.choosing.request"], "default_candidates", small_candidates)
    result = flowmcmc.sample(0, two_modes, starts(), **OPTIONS)
    assert result.settings["flow"] == taken
    assert result.settings["num_warmup"] == 14 + 14
    assert (result.params.layers is None) == (taken == "mixture")
    assert np.isfinite(result.trace.position).all()


def test_chains_memory_and_step_size_go_on(monkeypatch):
    set_numbers(monkeypatch, ENOUGH=1.1, OFTEN=1.1, STILL_LEARNING=np.inf, MIN_EFFICIENCY_RATIO=0.0)
    REMEMBERED.clear()
    warm = warm_all(small_candidates(jnp.zeros(2)))
    assert warm.candidate == 1 and not warm.is_partial and len(warm.trace.info.step_size) == 14
    # the starts and the states of all rounds
    assert max(REMEMBERED) == 20 + 14 * 20
    first, second = warm.trace.info.step_size[6:8]
    assert 0.3 < second / first < 3


REMEMBERED = []  # how many states, in each round


def keep(state, info):
    """One function for all tests, so that they share their programs."""
    counts = state.training.seen.count, state.training.heldout.count
    jax.debug.callback(lambda *counts: REMEMBERED.append(sum(map(int, counts))), *counts)
    return keep_info(state, info)


def make_sampler(candidate):
    return flowmcmc.adaptive(two_modes, blackjax.mala, candidate.flow, num_train_steps=2)


def make_frozen(candidate):
    steps = check_steps(blackjax.mala, candidate.flow, 5, 5, flowmcmc.imh)
    return production(two_modes, steps, Tuning((), jnp.zeros(()), ()), all_moves(5))


def warm_all(candidates):
    plan = WarmUpPlan(make_sampler, make_frozen, lambda trial: all_moves(5), 20, 0.65, keep, False, Budget())
    return warm_up(jax.random.key(0), plan, candidates, starts(), None)


def test_particles_are_remembered():
    init = make_sampler(small_candidates(jnp.zeros(2))[0]).init
    first = warmup.init_with_particles(init, jax.random.key(0), starts(), starts(300))
    assert int(first.training.seen.count + first.training.heldout.count) == 320


@pytest.mark.parametrize(("loss_of_layers", "blocks"), [(1.0, 9), (3.0, 1)])
def test_layers_train_on_while_they_learn_and_are_ahead(monkeypatch, loss_of_layers, blocks):
    losses = iter(2 * [2.0] + 20 * [loss_of_layers])  # the mixture's is asked for twice
    monkeypatch.setattr(warmup, "block_stats", lambda trace: BlockStats(0.1, 99, False, 1.0, next(losses)))
    set_numbers(monkeypatch, STARVED=1.0)
    warm = warm_all(small_candidates(jnp.zeros(2)))
    assert len(warm.trace.info.step_size) == 7 + blocks * 7


@pytest.mark.parametrize(("rate", "longest", "rounds"), [(0.5, 25, 7), (0.5, 40, 14), (0.3, 25, 14)])
def test_some_wait_is_not_worth_layers_if_most_proposals_are_accepted(monkeypatch, rate, longest, rounds):
    monkeypatch.setattr(warmup, "block_stats", lambda trace: BlockStats(rate, longest, False, 0.0, 1.0))
    set_numbers(monkeypatch, STARVED=1.0)
    warm = warm_all(small_candidates(jnp.zeros(2)))
    assert len(warm.trace.info.step_size) == rounds


@pytest.mark.slow
def test_many_independent_wells_are_for_the_marginals():
    def wells(x):
        return jnp.sum(jnp.logaddexp(jnp.log(0.7) - 0.5 * ((x - 2) / 0.3) ** 2, -0.5 * ((x + 2) / 0.3) ** 2))

    side = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, (40, 12)), 2.0, -2.0)
    result = flowmcmc.sample(1, wells, side, num_warmup=60, num_samples=200, progress_bar=False)
    assert result.settings["flow"] == "marginals"
    draws = result.trace.position
    # 8000 draws, accepted at 0.5 or more: each weight to 0.02 (three standard errors)
    assert np.abs((draws > 0).mean((0, 1)) - 0.7 / 1.7).max() < 0.03


@pytest.mark.slow
def test_a_product_is_for_the_marginals_though_a_mixture_would_do():
    wide = flowmcmc.normal(jnp.zeros(16), scale=10.0)
    result = flowmcmc.sample(1, lambda x: -jnp.sum(jnp.abs(x)), wide, num_warmup=200, num_samples=200, **QUIET)
    assert result.settings["flow"] == "marginals"
    # the mixture's fit to the particles is seen to be worse: no round for it, which would make at least 80
    assert result.settings["num_warmup"] <= 70
    assert result.trace.info.flow_acceptance_rate.mean() > 0.6
    # 20,000 draws, a third of them effective or more, of variance 2 and kurtosis 6: four standard errors and more
    assert np.abs(result.trace.position.var((0, 1)) / 2 - 1).max() < 0.15


def test_one_component_goes_on_while_states_are_all_it_lacks(monkeypatch):
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2))._replace(num_components=lambda params: params)
    candidate = Candidate("mixture", flow, LOCAL)
    rates = [0.14, 0.31, 0.315, 0.5, 0.03]
    asked = {}
    for name, gets_further, count in (("one", False, 1), ("two", False, 2), ("further", True, 2)):
        should_continue = warmup.continue_while_gaining(candidate, gets_further)
        verdicts = iter([BlockStats(rate, 9, False, 0.0, 0.0) for rate in rates])
        monkeypatch.setattr(warmup, "block_stats", lambda trace, verdicts=verdicts: next(verdicts))
        asked[name] = [should_continue(object(), count) for _ in rates]
    assert asked == {
        "one": [True, True, False, False, False],
        "two": [False] * 5,
        "further": [True, True, True, True, False],
    }


def draws(key, shape):
    return jax.random.normal(jax.random.key(key), shape)


def either(which, x):
    """One density for two, so that they share their programs."""
    return jnp.where(which == 0, two_modes(x), funnel(x))


def try_both(monkeypatch):
    """A mixture is never enough, and there are no layers."""
    set_numbers(monkeypatch, ENOUGH=1.1, OFTEN=1.1)

    def candidates(position):
        mixture, funnel = (
            flowmcmc.gaussian_mixture(position, num_components=2),
            flowmcmc.funnel_mixture(position, num_components=2),
        )
        ridges = {"min_first_gain": 0.03, "follows_ridges": True, "price": 2.0}
        return [Candidate("mixture", mixture, LOCAL), Candidate("funnel", funnel, LOCAL, **ridges)]

    monkeypatch.setattr(sys.modules["flowmcmc.choosing.request"], "default_candidates", candidates)


def test_a_flow_that_does_not_fit_better_takes_no_round(monkeypatch):
    try_both(monkeypatch)
    starts = 3 * jnp.where(jnp.arange(40) % 3 > 0, 1.0, -1.0)[:, None] + draws(6, (40, 2))
    result = flowmcmc.sample(0, Partial(either, jnp.array(0)), starts, num_warmup=60, num_samples=20, **QUIET)
    assert result.settings["flow"] == "mixture"
    assert result.settings["num_warmup"] == 21


@pytest.mark.parametrize("nth", [1, 3])
def test_ctrl_c_in_the_second_flow_keeps_what_there_is(monkeypatch, interrupt, nth):
    try_both(monkeypatch)
    v = 3 * draws(8, (40, 1))
    starts = jnp.concatenate([v, draws(7, (40, 1)) * jnp.exp(v / 2)], axis=1)
    interrupt(5 + nth)
    with pytest.warns(UserWarning, match=f"interrupted after {5 * (nth - 1)} of 21 rounds"):
        result = flowmcmc.sample(0, Partial(either, jnp.array(1)), starts, num_warmup=60, num_samples=20, **QUIET)
    assert result.settings["partial"] and result.trace is None
    assert len(result.warmup.info.step_size) == 21 + 5 * (nth - 1)


def test_what_the_states_promise_is_tried_though_a_flow_is_enough(monkeypatch):
    monkeypatch.setattr(warmup, "block_stats", lambda trace: BlockStats(0.9, 0, True, 0.0, 1.0))
    set_numbers(monkeypatch, STARVED=1.0)
    first, second = small_candidates(jnp.zeros(2))
    same = first._replace(name="again")
    rounds = {}
    for outlook in Outlook:
        candidates = [first, same._replace(outlook=lambda evidence, outlook=outlook: outlook), second]
        rounds[outlook] = len(warm_all(candidates).trace.info.step_size)
    assert rounds == {Outlook.NONE: 7, Outlook.FAIR: 7, Outlook.BETTER: 14}


def test_ctrl_c_while_the_next_flow_is_compiled_loses_no_round(monkeypatch):
    set_numbers(monkeypatch, ENOUGH=1.1, OFTEN=1.1)
    try_candidate = warmup.try_candidate

    def interrupted(key, plan, candidates, tried, index, start, particles):
        if index == 1:
            raise KeyboardInterrupt
        return try_candidate(key, plan, candidates, tried, index, start, particles)

    monkeypatch.setattr(warmup, "try_candidate", interrupted)
    with pytest.warns(UserWarning, match="interrupted before the next flow"):
        warm = warm_all(small_candidates(jnp.zeros(2)))
    assert warm.is_partial and warm.candidate == 0 and len(warm.trace.info.step_size) == 7
    monkeypatch.setattr(warmup, "try_candidate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        warm_all(small_candidates(jnp.zeros(2)))
