"""Options and keys are looked at by name."""

import numpy as np
import pytest
from support.targets import normal

import flowmcmc

STARTS = np.zeros((4, 2), np.float32)
BAD_OPTIONS = {
    "num_samples": {"num_samples": 0},
    "num_warmup": {"num_warmup": 0},
    "num_local_steps": {"num_local_steps": -1},
    "num_flow_steps": {"num_local_steps": 0, "num_flow_steps": 0},
    "target_acceptance_rate": {"target_acceptance_rate": 1.0},
    "history_size": {"history_size": 2},
    "batch_size": {"batch_size": 0},
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        flowmcmc.sample(0, normal, STARTS, **BAD_OPTIONS[name])


@pytest.mark.parametrize("seed", [1.5, "0", None, True, np.zeros((2, 2), np.uint32)])
def test_bad_keys_are_refused(seed):
    with pytest.raises(TypeError, match="rng_key"):
        flowmcmc.sample(seed, normal, STARTS)
