"""A table and a verdict in words. "No problem found" names the checks that were made, and says what is unknown."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowmcmc.arguments import check_tree
from flowmcmc.diagnostics import (
    Importance,
    ModeWeights,
    coordinate_names,
    draws_of,
    importance,
    mode_weights,
    rejections,
    rhat_by_start,
)
from flowmcmc.edges import CUT_OFF, edges, reach

__all__ = ["Summary", "summary"]

MAX_RHAT = 1.01
MIN_ESS = 400  # Vehtari et al., arXiv 1903.08008
MIN_FLOW_ACCEPTANCE = 0.05
MAX_WAIT = 0.1  # of a chain's draws, without an accepted flow proposal
# of local steps: 0.19 to 0.26 in default runs, since the longest of the steps drawn is too long on purpose; where the
# step size was adapted to an acceptance of 0.65, at most 0.35
MAX_DIVERGING = 0.5
MAX_EDGES = 3  # that are named
MAX_STATES = 1_000_000  # that ends of coordinates are looked for in
LABELS = {"diverging": "diverging or hopeless steps"}


@dataclass(frozen=True)
class Summary:
    """What `summary` found; ``print`` it.

    Attributes
    ----------
    table
        arviz's summary, a row for each coordinate.
    modes
        `ModeWeights`, or None.
    rejections
        Acceptance and longest runs for each chain, an ``xarray.Dataset``.
    importance
        Weights of the flow, or None without a `SampleResult`.
    problems
        Sentences, empty if none was found.
    """

    table: Any
    modes: ModeWeights | None
    rejections: Any
    importance: Importance | None
    problems: list[str]

    @property
    def verdict(self) -> str:
        """All problems in words, or that none was found by the checks that could be made."""
        if not self.problems:
            is_known = any(name.endswith("acceptance_rate") for name in self.rejections)
            made = (
                "ESS, acceptance and mode visits pass" if is_known else "ESS and mode visits pass; acceptance unknown"
            )
            return f"No problem found: r-hat, {made}. A mode that no chain ever saw cannot show here."
        return "NOT to be trusted yet:\n" + "\n".join(f"  - {problem}" for problem in self.problems)

    @property
    def acceptance(self) -> list[str]:
        """Acceptance and waits of the kernels, and how well the flow alone does, in words."""
        lines = []
        for name, values in self.rejections.items():
            if name == "diverging" and ("local_acceptance_rate" in self.rejections or not values.any()):
                continue  # of this library's own steps many are too long on purpose
            is_rate = name.endswith("_rate")
            worst = "lowest" if is_rate else "longest" if name.startswith("longest") else "highest"
            number = float(values.min() if is_rate else values.max())
            label = LABELS.get(name, name.removesuffix("_rate").replace("_", " "))
            lines.append(f"{label}: mean over chains {float(values.mean()):.3g}, {worst} {number:.3g}")
        if self.importance is not None:
            lines.append(
                f"flow alone: Pareto k {self.importance.pareto_k:.2f}, ESS {self.importance.ess:.1%} of its draws"
            )
        return lines

    def __str__(self) -> str:
        lines = [self.table.to_string(max_rows=20), "", *self.acceptance]
        if self.modes is not None:
            for index, (weight, error) in enumerate(zip(self.modes.weights, self.modes.mcse)):
                shown = "error unknown" if np.isnan(error) else f"+- {error:.4f}"
                lines.append(
                    f"mode {index}: weight {weight:.4f} {shown}, visited by {self.modes.num_chains[index]} of "
                    f"{self.modes.labels.shape[0]} chains, entered {self.modes.transitions[index]} times"
                )
        return "\n".join([*lines, "", self.verdict])


def summary(result, *, modes=None) -> Summary:
    """Table, modes, flow weights, and a verdict on a run.

    Parameters
    ----------
    result
        A `SampleResult`; or a DataTree with ``posterior`` (and ``sample_stats``), for a run of any sampler.
    modes
        As in `mode_weights`; by default found by clustering.

    Raises
    ------
    ValueError
        If there are no draws.
    """
    import arviz as az

    tree = getattr(result, "datatree", result)
    check_tree(tree)
    if "posterior" not in tree.children or tree["posterior"].sizes.get("draw", 0) < 4:
        raise ValueError("there are fewer than 4 draws for each chain: nothing to summarise; draw more.")
    weights = mode_weights(tree, modes)
    # a DataTree shows its attrs, "flow" among them, as attributes
    uses_flow = hasattr(result, "tuning") and result.settings["num_flow_steps"] > 0
    weighed = importance(result) if uses_flow else None
    rates = rejections(tree) if "sample_stats" in tree.children else rejections_unknown()
    problems = [
        *convergence_problems(az, tree),
        *mode_problems(weights),
        *kernel_problems(rates, tree),
        *edge_problems(tree),
        *flow_problems(weighed),
    ]
    return Summary(az.summary(tree), weights, rates, weighed, problems)


def rejections_unknown():
    """An empty table, for a run of another sampler."""
    import xarray as xr

    return xr.Dataset()


def convergence_problems(az, tree) -> list[str]:
    """r-hat and effective sample size, by arviz."""
    problems = []
    if tree.attrs.get("partial"):
        problems.append("the run was interrupted: fewer draws than asked for.")
    posterior = tree["posterior"]
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    if chains < 4:
        problems.append(
            f"only {chains} chain(s): agreement between chains cannot be judged; run 4 or more (100 is good)."
        )
    stuck = [str(name) for name, v in posterior.data_vars.items() if bool((v.std(("chain", "draw")) == 0).any())]
    if stuck:
        problems.append(f"{', '.join(stuck)} never moved: every draw is the same.")
    if not all(bool(np.isfinite(v).all()) for v in posterior.data_vars.values()):
        problems.append("draws hold NaN or infinite numbers.")
    rhat = largest(az.rhat(tree), max) if chains > 1 else np.nan
    # with many short chains classic r-hat is noisy, and takes any memory of a chain for disagreement
    if 4 < draws < 50 and chains >= 32:
        rhat = float(rhat_by_start(tree).max())
    if not rhat <= MAX_RHAT:
        problems.append(
            f"r-hat is {rhat:.3f} (should be at most {MAX_RHAT}): chains disagree. Run longer, or see the points below."
        )
    for method in ("bulk", "tail"):
        ess = largest(az.ess(tree, method=method), min)
        if not ess >= MIN_ESS:
            problems.append(f"{method} ESS is {ess:.0f} (should be at least {MIN_ESS}): draw more.")
    return problems


def mode_problems(modes: ModeWeights) -> list[str]:
    """Modes visited by few chains, or with a large error."""
    problems = []
    if len(modes.weights) < 2:
        return problems
    for index, (weight, error) in enumerate(zip(modes.weights, modes.mcse)):
        if weight == 0:
            problems.append(f"mode {index} was never visited: start some chains there, or it weighs next to nothing.")
        elif modes.transitions[index] == 0:
            problems.append(
                f"mode {index} (weight {weight:.3f}) was never entered: its weight is where chains started."
            )
        elif modes.transitions[index] < 20:
            problems.append(
                f"mode {index} (weight {weight:.3f}) was entered only {modes.transitions[index]} times over all "
                "chains: its weight reflects where chains started."
            )
        elif error > 0.05:
            problems.append(
                f"the weight of mode {index}, {weight:.3f}, has a Monte Carlo error of {error:.3f}: draw more."
            )
    return problems


def kernel_problems(rates, tree) -> list[str]:
    """Acceptance of either kind of step, stuck chains, invalid proposals."""
    problems = []
    if "flow_acceptance_rate" in rates:
        mean = float(rates["flow_acceptance_rate"].mean())
        if mean < MIN_FLOW_ACCEPTANCE:
            problems.append(
                f"flow proposals accepted {100 * mean:.1f} %: jumps between modes are rare. Warm up longer, take a "
                "larger flow (spline_flow, more layers), or isir with many proposals; in high dimension rely on local "
                "steps."
            )
        longest = rates["longest_rejection"]
        draws = tree["posterior"].sizes["draw"]
        if mean >= MIN_FLOW_ACCEPTANCE and float(longest.max()) > max(50, MAX_WAIT * draws):
            problems.append(
                f"chain {int(np.argmax(longest.values))} went {int(longest.max())} rounds without an accepted flow "
                "proposal: the flow's density is far too small there. Raise `defensive`, or warm up longer."
            )
    if "local_acceptance_rate" in rates:
        mean = float(rates["local_acceptance_rate"].mean())
        if not mean > 0.1:
            problems.append(
                f"local steps accepted {100 * mean:.1f} %: check the gradient for NaN, and the scale of the parameters."
            )
        stuck = int((rates["local_acceptance_rate"] < 0.01).sum())
        if mean > 0.1 and stuck:
            problems.append(
                f"{stuck} chain(s) hardly accept a local step: they may sit at a wall or where gradients are NaN."
            )
    if "diverging" in rates and (share := float(rates["diverging"].mean())) > MAX_DIVERGING:
        problems.append(
            f"{100 * share:.0f} % of local steps diverged or had no chance (zero or NaN density): see where the "
            "density ends or is NaN, or take shorter steps."
        )
    if "num_flow_invalid" in tree.get("sample_stats", {}):
        stats = tree["sample_stats"]
        invalid = int(stats["num_flow_invalid"].sum())
        if invalid > 0.01 * stats["num_flow_invalid"].size:
            problems.append(
                f"{invalid} flow proposals had a NaN or infinite density and were rejected: the draws are exact for "
                "the density with those regions cut out; make sure that is what you mean."
            )
    return problems


def edge_problems(tree) -> list[str]:
    """Ends of coordinates from which hardly any step leads away."""
    stats = tree.get("sample_stats", {})
    names = ("local_acceptance_rate", "flow_acceptance_rate")
    if not all(name in stats for name in names):
        return []
    draws = draws_of(tree)
    every = 1 + draws.shape[0] * draws.shape[1] // MAX_STATES
    rates = (stats[name].transpose("chain", "draw").values[:, 1::every].ravel() for name in names)
    found = edges(draws[:, :-1:every].reshape(-1, draws.shape[2]), *rates)
    coordinates = coordinate_names(tree)
    problems = []
    for edge in found[:MAX_EDGES]:
        if not reach([edge]) < CUT_OFF:
            break
        side = "below" if edge.is_low else "above"
        shares = [
            f"{kind} {100 * share:.0f} %"
            for kind, share in (("local steps", edge.local), ("flow proposals", edge.flow))
            if not np.isnan(share)
        ]
        problems.append(
            f"where {coordinates[edge.coordinate]} is {side} {edge.bound:.3g}, steps are accepted far less often than "
            f"elsewhere ({' and '.join(shares)} of the usual rate): a neck or a ridge may go on there, and what lies "
            "beyond is missing. Warm up longer, or reparametrise (a hierarchy: non-centred)."
        )
    return problems


def flow_problems(weighed: Importance | None) -> list[str]:
    """Heavy tails of the flow's weights."""
    if weighed is not None and weighed.ess == 0.0:
        return ["no draw of the flow has a finite density under the target."]
    if weighed is not None and weighed.pareto_k > 0.7 and weighed.ess < 0.05:
        return [
            f"the flow's importance weights have heavy tails (Pareto k {weighed.pareto_k:.2f}, ESS {weighed.ess:.1%}): "
            "it misses part of what chains visit, and they wait there. Warm up longer, or raise `defensive`."
        ]
    return []


def largest(dataset, pick) -> float:
    """The worst value over all variables; NaN if any is."""
    values = np.concatenate([np.ravel(v.values) for v in dataset.data_vars.values()])
    return float("nan") if np.isnan(values).any() else float(pick(values))
