"""Looking at arguments before a library complains about them in its own terms: what was seen, what to pass."""

import operator
from functools import partial
from typing import Any

import numpy as np

__all__ = [
    "check_callables",
    "check_counts",
    "check_flow_type",
    "check_has",
    "check_limits",
    "check_local",
    "check_numbers",
    "check_optimizer",
    "check_sampler",
    "describe_value",
    "hashable",
    "is_density",
]


def check_counts(counts: dict[str, Any], smallest: int = 1) -> None:
    """Raise TypeError or ValueError unless each value is an integer of at least `smallest`."""
    for name, value in counts.items():
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} must be an integer, got {describe_value(value)}.") from None
        if number < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {value}.")


def check_numbers(numbers: dict[str, Any]) -> None:
    """Raise TypeError unless each value is one real number."""
    for name, value in numbers.items():
        if isinstance(value, (str, bytes)) or np.shape(value) or not np.isrealobj(value):
            raise TypeError(f"{name} must be a number, got {describe_value(value)}.")
        try:
            float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a number, got {describe_value(value)}.") from None


def check_limits(limits: dict[str, Any]) -> None:
    """Raise unless each value is None or a positive number."""
    given = {name: value for name, value in limits.items() if value is not None}
    check_numbers(given)
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}; leave it out for no limit.")


def check_callables(functions: dict[str, Any], example: str) -> None:
    """Raise TypeError unless each value can be called; `example` says what could be."""
    for name, value in functions.items():
        if not callable(value):
            raise TypeError(f"{name} must be a function, such as {example}; got {describe_value(value)}.")


def check_has(name: str, value: Any, attributes: tuple[str, ...], example: str) -> None:
    """Raise TypeError unless `value` has all `attributes`."""
    if not all(hasattr(value, attribute) for attribute in attributes):
        raise TypeError(f"{name} must be {example}; got {describe_value(value)}.")


def check_flow_type(flow: Any) -> None:
    """Raise TypeError unless `flow` has the three functions of a `Flow`."""
    if not all(callable(getattr(flow, name, None)) for name in ("init", "sample_and_log_prob", "log_prob")):
        raise TypeError(f"flow must be a Flow, such as flowmcmc.real_nvp(position); got {describe_value(flow)}.")


def check_local(local: Any) -> None:
    """Raise TypeError unless `local` is a constructor of kernels."""
    check_callables({"local": local}, "blackjax.mala itself, not blackjax.mala(logdensity_fn, step_size)")


def check_sampler(algorithm: Any) -> None:
    """Raise TypeError unless it is a `SamplingAlgorithm`; BlackJAX's constructors have an ``init`` but no ``step``."""
    example = "a SamplingAlgorithm, such as blackjax.mala(logdensity_fn, 0.1)"
    check_has("algorithm", algorithm, ("init", "step"), example)


def check_optimizer(optimizer: Any) -> None:
    """Raise TypeError unless it is optax's."""
    check_has("optimizer", optimizer, ("init", "update"), "an optax optimiser, such as optax.adam(1e-3)")


class ByIdentity:
    """What it wraps, equal to itself alone: for callables that have no hash."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    def __call__(self, *args):
        return self.wrapped(*args)

    def __getattr__(self, name):
        if name == "wrapped":  # not yet there, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __hash__(self):
        return id(self.wrapped)

    def __eq__(self, other):
        return isinstance(other, ByIdentity) and self.wrapped is other.wrapped


class ByValue(partial):
    """A `functools.partial` that equals another of the same function and the same arguments."""

    @property
    def key(self) -> tuple:
        return hashable(self.func), self.args, tuple(sorted(self.keywords.items()))

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return isinstance(other, ByValue) and self.key == other.key


def hashable(value: Any) -> Any:
    """The value, or an equal one that compiled programs can be kept by: a `functools.partial` counts by what it holds,
    anything without a hash (a dataclass with data, say) by its identity."""
    if type(value) is partial:
        value = ByValue(value.func, *value.args, **value.keywords)
    try:
        hash(value)
    except TypeError:
        return ByIdentity(value)
    return value


def describe_value(value: Any) -> str:
    """A value in a few characters, its type where that says more."""
    if value is None or isinstance(value, (bool, int, float, str, np.number)):
        return repr(value)[:60]
    return f"a {type(value).__name__}" + (f" ({value.__name__})" if hasattr(value, "__name__") else "")


def is_density(value) -> bool:
    """Whether `value` can draw and weigh positions, as `flowmcmc.normal` or a NumPyro distribution can."""
    return callable(getattr(value, "sample", None)) and callable(getattr(value, "log_prob", None))
