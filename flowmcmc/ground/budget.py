"""What a run may spend, and what it has spent: seconds, and evaluations of the density."""

import time

__all__ = ["Budget"]


class Budget:
    """Limits of a run, None where there are none, and what it has spent so far.

    Parameters
    ----------
    max_seconds
        Of wall time, from now on.
    max_evaluations
        Of the density, with its gradient or without.
    """

    def __init__(self, max_seconds: float | None = None, max_evaluations: float | None = None):
        self.max_seconds, self.max_evaluations = max_seconds, max_evaluations
        self.began, self.evaluations = time.perf_counter(), 0

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self.max_seconds is not None or self.max_evaluations is not None

    @property
    def share_spent(self) -> float:
        """Of whichever limit is nearer; 1 or more where one is reached."""
        seconds = time.perf_counter() - self.began
        limits = (seconds, self.max_seconds), (self.evaluations, self.max_evaluations)
        return max((spent / limit for spent, limit in limits if limit is not None), default=0.0)

    def spend(self, num_evaluations: int) -> bool:
        """Count so many evaluations more; whether a limit is reached now."""
        self.evaluations += num_evaluations
        return self.share_spent >= 1

    @property
    def nearest(self) -> str:
        """Name of the limit that is nearest, or reached."""
        if self.max_evaluations is None or self.max_seconds is None:
            return "max_seconds" if self.max_evaluations is None else "max_evaluations"
        is_time = (time.perf_counter() - self.began) / self.max_seconds > self.evaluations / self.max_evaluations
        return "max_seconds" if is_time else "max_evaluations"

    def rounds_left(self, seconds: float, evaluations: float) -> float:
        """Rounds that fit into what is left, if each takes so much."""
        left_seconds = float("inf") if self.max_seconds is None else self.max_seconds - time.perf_counter() + self.began
        left = float("inf") if self.max_evaluations is None else self.max_evaluations - self.evaluations
        return max(0.0, min(left_seconds / max(seconds, 1e-9), left / max(evaluations, 1e-9)))
