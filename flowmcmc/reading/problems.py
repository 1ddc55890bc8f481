"""Problems of a run, in sentences: what was seen, and what to do. `flowmcmc.summary` lists them."""

import numpy as np

from flowmcmc.reading.convergence import MAX_RHAT
from flowmcmc.reading.diagnostics import Importance, ModeWeights, coordinate_names, draws_of, rhat_by_start
from flowmcmc.reading.edges import CUT_OFF, edges

__all__ = [
    "convergence_problems",
    "edge_problems",
    "flow_problems",
    "kernel_problems",
    "mode_problems",
    "worst_value",
]

MIN_ESS = 400  # Vehtari et al., arXiv 1903.08008
MIN_FLOW_ACCEPTANCE = 0.05
MAX_WAIT_SHARE = 0.1  # longest run without an accepted flow proposal, as a share of a chain's draws
# share of local steps: 0.19 to 0.26 in default runs, since the longest jittered steps are too long on purpose; at most
# 0.35 where the step size was adapted to an acceptance of 0.65
MAX_DIVERGING = 0.5
MIN_LOCAL_ROUNDS = 20  # with local steps, or a chain that accepts none of them may do so by chance
MAX_EDGES = 3  # ends of coordinates that are reported
MAX_EDGE_STATES = 1_000_000  # states in which ends of coordinates are sought


def convergence_problems(az, tree) -> list[str]:
    """Too few chains or draws, chains that never moved, a large r-hat, a small effective sample size."""
    problems = []
    if tree.attrs.get("partial"):
        limit = tree.attrs.get("stopped", "")
        is_limit = limit.startswith("max_")
        cut_short = "the run was interrupted: fewer draws than asked for."
        problems.append(f"{limit} was reached: the run ended before its time." if is_limit else cut_short)
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
    rhat = worst_value(az.rhat(tree), max) if chains > 1 else np.nan
    # for many short chains classic r-hat is noisy, and mistakes autocorrelation for disagreement
    if 4 < draws < 50 and chains >= 32:
        rhat = float(rhat_by_start(tree).max())
    if not rhat <= MAX_RHAT:
        problems.append(
            f"r-hat is {rhat:.3f} (should be at most {MAX_RHAT}): chains disagree. Run longer, or see the points below."
        )
    for method in ("bulk", "tail"):
        ess = worst_value(az.ess(tree, method=method), min)
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
    """Low acceptance of either kind of step, stuck chains, divergences, invalid proposals."""
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
        if mean >= MIN_FLOW_ACCEPTANCE and float(longest.max()) > max(50, MAX_WAIT_SHARE * draws):
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
        has_local = ~np.isnan(tree["sample_stats"]["local_acceptance_rate"])
        is_judged = has_local.sum("draw") >= MIN_LOCAL_ROUNDS
        stuck = int(((rates["local_acceptance_rate"] < 0.01) & is_judged).sum())
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
    """Ends of coordinates where hardly any step is accepted."""
    stats = tree.get("sample_stats", {})
    names = ("local_acceptance_rate", "flow_acceptance_rate")
    if not all(name in stats for name in names):
        return []
    draws = draws_of(tree)
    every = 1 + draws.shape[0] * draws.shape[1] // MAX_EDGE_STATES
    rates = (stats[name].transpose("chain", "draw").values[:, 1::every].ravel() for name in names)
    found = edges(draws[:, :-1:every].reshape(-1, draws.shape[2]), *rates)
    coordinates = coordinate_names(tree)
    problems = []
    for edge in [edge for edge in found if edge.ratio < CUT_OFF][:MAX_EDGES]:
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
    """Heavy tails of the flow's importance weights."""
    if weighed is not None and weighed.ess == 0.0:
        return ["no draw of the flow has a finite density under the target."]
    if weighed is not None and weighed.pareto_k > 0.7 and weighed.ess < 0.05:
        return [
            f"the flow's importance weights have heavy tails (Pareto k {weighed.pareto_k:.2f}, ESS {weighed.ess:.1%}): "
            "it misses part of what chains visit, and they wait there. Warm up longer, or raise `defensive`."
        ]
    return []


def worst_value(dataset, pick) -> float:
    """The value that `pick` (max or min) selects over all variables; NaN if any value is NaN."""
    values = np.concatenate([np.ravel(v.values) for v in dataset.data_vars.values()])
    return float("nan") if np.isnan(values).any() else float(pick(values))
