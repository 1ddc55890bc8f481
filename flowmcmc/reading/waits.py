"""How long a chain waits for a proposal that is accepted."""

import numpy as np

__all__ = ["longest_run"]


def longest_run(is_rejected: np.ndarray) -> int:
    """Length of the longest run of True."""
    breaks = np.flatnonzero(np.concatenate([[True], ~is_rejected, [True]]))
    return int(np.diff(breaks).max() - 1)
