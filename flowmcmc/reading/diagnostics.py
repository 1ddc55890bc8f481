"""Diagnostics that arviz lacks: modes, flow proposals and their importance weights. All others are arviz's own.

They take the DataTree or the `SampleResult` of a run; importance weights need the latter.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np

from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.checks import check_result, check_tree
from flowmcmc.ground.conversions import as_key
from flowmcmc.ground.leaves import concatenate_coordinates
from flowmcmc.reading.modes import find_modes
from flowmcmc.reading.waits import longest_run
from flowmcmc.reading.weights import effective_fraction, flow_log_weights, tail_shape

__all__ = ["Importance", "ModeWeights", "importance", "mode_weights", "nested_rhat", "rejections"]


class ModeWeights(NamedTuple):
    """`weights` and Monte Carlo standard errors `mcse`, one for each mode; `labels` (chain, draw) of the draws; and for
    each mode the number of `transitions` into it and `num_chains`, the chains that visited it.

    An error is NaN where it cannot be estimated: a mode with all or none of the draws, or fewer than four per chain.
    """

    weights: np.ndarray
    mcse: np.ndarray
    labels: np.ndarray
    transitions: np.ndarray
    num_chains: np.ndarray


class Importance(NamedTuple):
    """Importance weights of fresh flow draws: `log_weights` (n,), `pareto_k` of their tail (above 0.7: the flow misses
    part of the target, or its tails), and effective sample size `ess` as a fraction of n."""

    log_weights: np.ndarray
    pareto_k: float
    ess: float


def group_of(datatree, group: str):
    """A group of a DataTree or a `SampleResult`.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or has no such group.
    """
    tree = getattr(datatree, "datatree", datatree)
    check_tree(tree)
    if group not in tree.children:
        raise ValueError(f"the DataTree has no group {group}, only {sorted(tree.children)}.")
    return tree[group]


def draws_of(datatree, group: str = "posterior") -> np.ndarray:
    """All coordinates as one array (chain, draw, d), in the order of the variables."""
    values = [v.transpose("chain", "draw", ...).values for v in group_of(datatree, group).data_vars.values()]
    return concatenate_coordinates(values)


def coordinate_names(datatree) -> list[str]:
    """Names of the coordinates, such as ``x[0]``, in the order of `draws_of`."""
    variables = group_of(datatree, "posterior").data_vars
    shapes = {str(name): v.transpose("chain", "draw", ...).shape[2:] for name, v in variables.items()}
    return entry_names(shapes)


def entry_names(shapes: dict[str, tuple]) -> list[str]:
    """A name for each entry of arrays of these shapes."""
    return [f"{n}{list(i) if i else ''}" for n, shape in shapes.items() for i in np.ndindex(*shape)]


def mode_weights(datatree, modes: np.ndarray | Callable | ModeWeights | None = None, *, rng_key=0) -> ModeWeights:
    """Fraction of draws in each mode, with its Monte Carlo error (arviz; Vehtari et al., arXiv 1903.08008).

    Parameters
    ----------
    datatree
        A DataTree with ``posterior``, or a `SampleResult`.
    modes
        Centres, shape (modes, d), coordinates in the order of ``posterior``: a draw belongs to the nearest one in units
        of the draws' standard deviations. Or a function from draws (n, d) to integers (n,). None finds the modes by
        clustering the draws. A `ModeWeights` is returned as it is.
    rng_key
        For the clustering.

    Returns
    -------
    ModeWeights
        ``weights`` (modes,), fractions that sum to one, and their standard errors ``mcse`` (modes,); ``labels`` (chain,
        draw); ``transitions`` and ``num_chains`` (modes,), how often each mode was entered and by how many chains it
        was visited.

    Raises
    ------
    ValueError
        If centres do not have d coordinates, the function does not return one integer for each draw, or a
        `ModeWeights` has labels of other draws.
    """
    import arviz as az

    draws = draws_of(datatree)
    if isinstance(modes, ModeWeights):
        if modes.labels.shape != draws.shape[:2]:
            raise ValueError(
                f"modes labels draws (chain, draw) of shape {modes.labels.shape}, but there are {draws.shape[:2]}: "
                "they belong to another run, or more was drawn since."
            )
        return modes
    flat = draws.reshape(-1, draws.shape[2])
    if modes is None:
        labels = find_modes(flat, rng_key=rng_key)
    elif callable(modes):
        labels = np.asarray(modes(flat))
        if labels.shape != (len(flat),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"modes must map draws (n, d) to n integers; it returned shape {labels.shape} of dtype {labels.dtype}."
            )
        if labels.min() < 0:
            raise ValueError(f"modes must return integers from 0 on; it returned {labels.min()}.")
    else:
        centres = np.atleast_2d(np.asarray(modes, float))
        if centres.shape[1] != flat.shape[1] or not len(centres):
            raise ValueError(f"modes has shape {centres.shape}, but draws have {flat.shape[1]} coordinates.")
        if not np.isfinite(centres).all():
            raise ValueError("modes holds NaN or infinite numbers: each row is the centre of a mode.")
        scale = np.where(flat.std(0) > 0, flat.std(0), 1.0)
        distance = [(((flat - centre) / scale) ** 2).sum(axis=1) for centre in centres]
        labels = np.argmin(distance, axis=0)
    num_modes = int(labels.max()) + 1 if modes is None or callable(modes) else len(centres)
    labels = labels.reshape(draws.shape[:2])
    weights, errors, transitions, visitors = [], [], [], []
    for mode in range(num_modes):
        inside = labels == mode
        weights.append(inside.mean())
        is_constant = inside.all() or not inside.any() or inside.shape[1] < 4
        errors.append(np.nan if is_constant else float(az.mcse(inside.astype(float))))
        transitions.append(int((inside[:, 1:] & ~inside[:, :-1]).sum()))
        visitors.append(int(inside.any(axis=1).sum()))
    return ModeWeights(np.array(weights), np.array(errors), labels, np.array(transitions), np.array(visitors))


def rejections(datatree):
    """Acceptance and the longest run of rejections for each chain.

    ``longest_rejection`` counts rounds in a row without an accepted flow proposal; a long one means that the chain sits
    where the flow's density is far too small. ``diverging`` is the share of local steps that diverged, or had no chance
    of acceptance (NaN or zero density). Where ``num_local_steps`` is not recorded, the largest count in any draw stands
    in for it.

    Parameters
    ----------
    datatree
        A DataTree with ``sample_stats``, or a `SampleResult`.

    Returns
    -------
    xarray.Dataset
        Over ``chain``, as far as recorded: ``local_acceptance_rate``, ``diverging`` and ``flow_acceptance_rate``,
        fractions in [0, 1], and ``longest_rejection``, a number of draws.
    """
    import xarray as xr

    stats = group_of(datatree, "sample_stats")
    num_steps = getattr(datatree, "datatree", datatree).attrs.get("num_local_steps")
    found = {}
    if "local_acceptance_rate" in stats:
        found["local_acceptance_rate"] = stats["local_acceptance_rate"].mean("draw")
    if "num_diverging" in stats:
        counts = stats["num_diverging"]
        if "local_acceptance_rate" in stats:  # rounds without local steps do not count
            counts = counts.where(~np.isnan(stats["local_acceptance_rate"]))
        found["diverging"] = counts.mean("draw") / (num_steps or np.max(stats["num_diverging"].values, initial=1))
    elif "diverging" in stats:
        found["diverging"] = stats["diverging"].mean("draw")
    if "flow_acceptance_rate" in stats:
        found["flow_acceptance_rate"] = stats["flow_acceptance_rate"].mean("draw")
        found["longest_rejection"] = xr.apply_ufunc(
            longest_run, stats["num_flow_accepted"] == 0, input_core_dims=[["draw"]], vectorize=True
        )
    return xr.Dataset(found)


def importance(result, *, num_draws: int = 4000, rng_key=0) -> Importance:
    """How well the flow alone covers the target: weights p / q of fresh draws (Vehtari et al., arXiv 1507.02646).

    A flow that has lost a whole mode does not show here, since none of its draws fall there.

    Parameters
    ----------
    result
        A `SampleResult`.
    num_draws
        Fresh flow draws.
    rng_key
        A key or int seed.

    Returns
    -------
    Importance
        ``log_weights`` (num_draws,) in nats, -inf where they are not finite; ``pareto_k``; and ``ess``, a fraction of
        `num_draws`.
    """
    check_result(result)
    check_counts({"num_draws": num_draws})
    log_weights = flow_log_weights(as_key(rng_key), result.logdensity_fn, result.flow, result.params, num_draws)
    log_weights = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    return Importance(log_weights, tail_shape(log_weights), effective_fraction(log_weights))


def nested_rhat(datatree, num_superchains: int = 8):
    """arviz's nested r-hat (Margossian et al., arXiv 2110.13017), for many short chains.

    Chain i belongs to superchain ``i % num_superchains``; the theory asks that the chains of one superchain start
    at one place. Otherwise it is too small to show a failure: M chains in each that never move give about
    sqrt(1 + 1 / M), and exactly 1 if all superchains have the same number of chains in each mode.

    Parameters
    ----------
    datatree
        A DataTree with ``posterior``, or a `SampleResult`.
    num_superchains
        Groups of chains that are compared with each other.

    Returns
    -------
    xarray.DataTree
        Nested r-hat of each coordinate, with the names and shapes of ``posterior`` without ``chain`` and ``draw``.

    Raises
    ------
    ValueError
        If the chains cannot be split evenly into superchains of two or more.
    """
    import arviz as az

    check_counts({"num_superchains": num_superchains})
    chains = group_of(datatree, "posterior").sizes["chain"]
    tree = getattr(datatree, "datatree", datatree)
    if chains % num_superchains or chains < 2 * num_superchains:
        raise ValueError(f"{chains} chains do not split into {num_superchains} superchains of equal size, two or more.")
    return az.rhat_nested(tree, superchain_ids=np.arange(chains) % num_superchains)


def rhat_by_start(datatree, num_superchains: int = 8) -> np.ndarray:
    """Nested r-hat of each coordinate, (d,), for many short chains, whatever the order they are in.

    Chains are grouped by their first draw, coordinate by coordinate, and compared on the others: groups are arbitrary
    for independent draws, but chains that do not move differ between them. Where chains do not split evenly, a few from
    the middle are left out. Needs five draws, and two chains in each superchain.
    """
    from arviz_stats.base.array import array_stats

    draws = draws_of(datatree)
    size, rest = divmod(len(draws), num_superchains)
    left_out = slice(len(draws) // 2, len(draws) // 2 + rest)
    groups = np.arange(size * num_superchains) // size
    found = []
    for values in np.moveaxis(draws, 2, 0):
        order = np.delete(np.argsort(values[:, 0], kind="stable"), left_out)
        found.append(float(cast(float, array_stats.rhat_nested(values[order, 1:], groups))))
    return np.array(found)
