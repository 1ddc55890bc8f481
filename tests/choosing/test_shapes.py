"""Shapes of a target are told from its states: products and ridges."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from flowmcmc.choosing import shapes


def test_shapes_are_told_from_states():
    normal, other = np.random.default_rng(0).standard_normal((2, 8000, 12))
    truth = 12 * 0.5 * np.log(2 * np.pi * np.e)
    assert shapes.product_entropy(normal) == pytest.approx(truth, abs=0.15)
    assert shapes.product_entropy(3 + 7 * normal) == pytest.approx(truth + 12 * np.log(7), abs=0.15)
    for nothing_to_tell in (np.zeros((8000, 12)), normal[:20], normal[:1], normal[:0]):
        assert shapes.product_entropy(nothing_to_tell) == np.inf
    funnel = normal.copy()
    funnel[:, 1:] *= np.exp(1.5 * normal[:, :1])
    ridge = normal.copy()
    ridge[:, 5] = (normal[:, 3] - 1) ** 2 + 0.3 * other[:, 5]
    line = normal.copy()
    line[:, 5] = normal[:, 3] + 0.01 * other[:, 5]
    two = normal + 5 * np.sign(other[:, :1])
    assert [shapes.is_ridge(rows) for rows in (normal, funnel, ridge, line, two)] == [False, False, True, False, False]
    assert not shapes.is_ridge(np.zeros((8000, 2)))


def test_a_product_is_told_from_few_states_only_where_one_component_falls_short_for_its_shape():
    def is_told(rows, seen=300):
        mean, covariance = rows[:seen].mean(0), np.cov(rows[:seen].T)
        loss = -multivariate_normal(mean, covariance).logpdf(rows[seen:]).mean()
        return loss > shapes.product_threshold(rows[:seen])

    rng = np.random.default_rng(0)
    normal, laplace = rng.standard_normal((8000, 24)), rng.laplace(size=(8000, 24))
    assert not is_told(normal)
    assert is_told(laplace)
    assert not is_told(laplace @ np.linalg.cholesky(0.3 * np.eye(24) + 0.7).T)
