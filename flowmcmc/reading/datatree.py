"""Conversion of traces to an arviz ``DataTree``, which diagnostics and plots read."""

from importlib.metadata import version

import jax
import numpy as np

from flowmcmc.ground.arguments import describe_value
from flowmcmc.ground.checks import check_names
from flowmcmc.ground.leaves import leaf_names
from flowmcmc.running.run import Trace

__all__ = ["to_datatree"]


def to_datatree(trace: Trace | None, *, warmup: Trace | None = None, attrs: dict | None = None):
    """Draws, sampler statistics and warm-up history as an ``xarray.DataTree``.

    Parameters
    ----------
    trace
        What `run` returned for a `freeze` sampler: arrays (draw, chain, ...). None if there are no draws.
    warmup
        What `run` returned for an `adaptive` sampler; with positions it also gives ``warmup_posterior``.
    attrs
        Numbers and strings recorded with the tree, next to the versions of the libraries.

    Returns
    -------
    xarray.DataTree
        ``posterior`` (chain, draw, ...) under the position's own names, nested ones joined by dots, a slash as a dot
        (``scope.tau``), a bare array as ``x``; ``sample_stats`` with ``lp``, ``acceptance_rate``, ``diverging`` and the
        rates of either kind of step; ``warmup_history`` (round,) with losses, step size and acceptance averaged over
        chains.

    Raises
    ------
    TypeError
        If `trace` or `warmup` is not what `run` left.
    ValueError
        If two leaves have one name, or that of an axis.
    """
    check_trace("trace", trace, "logdensity", "freeze")
    check_trace("warmup", warmup, "training", "adaptive")
    import arviz as az  # takes seconds to import
    import xarray as xr

    groups = {}
    if warmup is not None and warmup.position is not None:
        groups |= {
            "warmup_posterior": posterior_variables(warmup.position),
            "warmup_sample_stats": sample_stats(warmup.info.round),
        }
    if trace is not None:
        groups |= {"posterior": posterior_variables(trace.position), "sample_stats": sample_stats(trace.info)}
    tree = az.from_dict(groups, save_warmup=True) if groups else xr.DataTree()
    if warmup is not None:
        tree["warmup_history"] = xr.DataTree(
            xr.Dataset({k: ("round", v) for k, v in warmup_history(warmup.info).items()})
        )
    tree.attrs |= {f"{name}_version": version(name) for name in ("flowmcmc", "jax", "blackjax")}
    tree.attrs |= attrs or {}
    return tree


def check_trace(name: str, trace, field: str, sampler: str) -> None:
    """Raise TypeError unless it is None or a `Trace` whose infos have `field`, as those of `sampler` do."""
    if trace is not None and not hasattr(getattr(trace, "info", None), field):
        seen = (
            f"{describe_value(trace)} of {type(trace.info).__name__}"
            if hasattr(trace, "info")
            else describe_value(trace)
        )
        raise TypeError(
            f"{name} must be the Trace that flowmcmc.run made with the sampler of `{sampler}`, got {seen}; for draws "
            "from elsewhere call arviz.from_dict."
        )


def posterior_variables(position) -> dict[str, np.ndarray]:
    """Leaves by name, their axes swapped from (draw, chain, ...) to (chain, draw, ...)."""
    names, leaves = leaf_names(position), jax.tree.leaves(position)
    check_names("position", names, [leaf.ndim - 2 for leaf in leaves])
    return {name: np.swapaxes(leaf, 0, 1) for name, leaf in zip(names, leaves)}


def sample_stats(info) -> dict[str, np.ndarray]:
    """Fields of a `RoundInfo` trace as (chain, draw, ...), under arviz's names where it has one."""
    fields = {name: np.swapaxes(value, 0, 1) for name, value in info._asdict().items()}
    rates = np.stack([fields["local_acceptance_rate"], fields["flow_acceptance_rate"]])
    known = ~np.isnan(rates)
    return {
        "lp": fields.pop("logdensity"),
        "acceptance_rate": np.where(known, rates, 0).sum(0) / known.sum(0),
        "diverging": fields["num_diverging"] > 0,
        **{name: value for name, value in fields.items() if not value.size or not np.isnan(value).all()},
    }


def warmup_history(info) -> dict[str, np.ndarray]:
    """Fields of an `AdaptiveInfo` trace, averaged (counts: summed) over chains."""
    rounds = {
        name: value.sum(axis=1) if name.startswith("num_") else value.mean(axis=1)
        for name, value in info.round._asdict().items()
    }
    return {**rounds, **info.training._asdict(), "step_size": info.step_size}
