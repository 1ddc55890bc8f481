"""Made-up draws whose faults are known, as a DataTree."""

import arviz as az
import numpy as np


def tree_of(draws, accepted=None, num_diverging=None, **attrs):
    groups = {"posterior": {"x": draws}}
    if accepted is not None:
        groups["sample_stats"] = {
            "flow_acceptance_rate": accepted.astype(float),
            "num_flow_accepted": accepted.astype(int),
            "local_acceptance_rate": np.full(accepted.shape, 0.6),
            "num_flow_invalid": np.zeros(accepted.shape, int),
        }
        if num_diverging is not None:
            groups["sample_stats"] |= {"num_diverging": num_diverging, "diverging": num_diverging > 0}
    tree = az.from_dict(groups)
    tree.attrs |= attrs
    return tree


def hopping(weight=0.7, chains=20, draws=500, dim=2):
    """Independent draws of two modes."""
    rng = np.random.default_rng(0)
    mode = rng.uniform(size=(chains, draws, 1)) < weight
    return np.where(mode, 4.0, -4.0) + rng.normal(size=(chains, draws, dim))


def stuck(chains=20, draws=500, dim=2):
    """Half of the chains in each mode, for ever."""
    side = np.where(np.arange(chains) % 2 == 0, 4.0, -4.0)
    return side[:, None, None] + np.random.default_rng(0).normal(size=(chains, draws, dim))


CENTRES = np.array([[3.0, 3.0], [-3.0, -3.0]])
