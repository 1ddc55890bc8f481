"""Clusters of draws are modes; curves stay whole."""

import numpy as np

from flowmcmc.reading.modes import find_modes


def test_clusters_are_found_and_curves_stay_whole():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 4000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * (3 + 0.1 * rng.normal(size=(4000, 1)))
    assert find_modes(ring).max() == 0
    three = rng.normal(size=(3000, 20)) + 3.0 * np.eye(20)[[0, 1, 2] * 1000] * np.sqrt(20) / 2
    labels = find_modes(three)
    assert np.bincount(labels).tolist() == [1000, 1000, 1000]
    heavy = rng.standard_t(2, size=(4000, 2))
    assert find_modes(heavy).max() == 0
