"""A table and a verdict in words. "No problem found" names the checks that were made, and says what is unknown."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowmcmc.ground.checks import check_tree
from flowmcmc.reading.diagnostics import Importance, ModeWeights, importance, mode_weights, rejections
from flowmcmc.reading.problems import convergence_problems, edge_problems, flow_problems, kernel_problems, mode_problems

__all__ = ["Summary", "summary"]

RATE_LABELS = {"diverging": "diverging or hopeless steps"}


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
                continue  # many of this library's own local steps are too long on purpose
            is_rate = name.endswith("_rate")
            worst = "lowest" if is_rate else "longest" if name.startswith("longest") else "highest"
            number = float(values.min() if is_rate else values.max())
            label = RATE_LABELS.get(name, name.removesuffix("_rate").replace("_", " "))
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
    """Table, modes, flow weights, and a verdict on a run; r-hat and ESS are those of Vehtari et al. (arXiv 1903.08008).

    Parameters
    ----------
    result
        A `SampleResult`; or a DataTree with ``posterior`` (and ``sample_stats``), for a run of any sampler.
    modes
        As in `mode_weights`; by default found by clustering.

    Returns
    -------
    Summary
        ``table``, ``modes``, ``rejections``, ``importance`` and ``problems``, a list of sentences that is empty if none
        was found; printed, it ends with a verdict.

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
    rates = rejections(tree) if "sample_stats" in tree.children else empty_rejections()
    problems = [
        *convergence_problems(az, tree),
        *mode_problems(weights),
        *kernel_problems(rates, tree),
        *edge_problems(tree),
        *flow_problems(weighed),
    ]
    return Summary(az.summary(tree), weights, rates, weighed, problems)


def empty_rejections():
    """An empty Dataset, for a run of another sampler, whose rejections are unknown."""
    import xarray as xr

    return xr.Dataset()
