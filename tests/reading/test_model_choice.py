"""Weights of several models from their evidences, with errors."""

import numpy as np
import pytest

from flowmcmc.reading.evidence import LogZ
from flowmcmc.reading.model_choice import model_weights


def evidence(log_z, error, problems=()):
    return LogZ(log_z, error, 1.0, 0.0, problems, True, (log_z - 2 * error, log_z + 2 * error))


def test_model_weights_have_the_errors_of_repeated_runs():
    """Far below exp's range, a model of little weight, a sure one and an unsure one; by simulation, not by formula."""
    log_z, error, prior = np.array([-1000.0, -1000.7, -1005.0]), np.array([0.02, 0.05, 0.1]), np.array([1.0, 2.0, 1.0])
    found = model_weights([evidence(*one) for one in zip(log_z, error)], prior)
    exact = prior * np.exp(log_z + 1000)
    assert np.allclose(found.weights, exact / exact.sum(), rtol=1e-9) and not found.problems
    runs = prior * np.exp(log_z + 1000 + error * np.random.default_rng(0).normal(size=(40_000, 3)))
    spread = (runs / runs.sum(1, keepdims=True)).std(0)
    assert np.allclose(found.errors, spread, rtol=0.03)


def test_model_weights_of_one_model_and_of_one_ruled_out_are_certain():
    alone = model_weights([evidence(-3.0, 0.1)])
    assert alone.weights == 1.0 and alone.errors == 0.0
    ruled_out = model_weights([evidence(-3.0, 0.1), evidence(5.0, 0.1)], prior=[1, 0])
    assert np.array_equal(ruled_out.weights, [1, 0]) and not ruled_out.errors.any()


def test_model_weights_pass_on_problems_and_refuse_what_has_no_answer():
    doubtful = model_weights([evidence(-3.0, 0.1), evidence(-2.0, 0.1, ("a mode is probably lost",))])
    assert doubtful.problems == ("model 1: a mode is probably lost",)
    for log_zs, prior, named in (
        ([], None, "log_zs"),
        ([evidence(-np.inf, np.inf), evidence(0.0, 0.1)], None, "log_zs"),
        ([evidence(0.0, 0.1)], [1, 1], "prior"),
        ([evidence(0.0, 0.1)], [0], "prior"),
        ([evidence(0.0, 0.1)] * 2, [-1, 2], "prior"),
        ([evidence(0.0, 0.1)] * 2, [np.nan, 2], "prior"),
    ):
        with pytest.raises(ValueError, match=named):
            model_weights(log_zs, prior)
