"""The tables and the picture of the README from stored records."""

from functools import partial

import numpy as np

NAMES = {
    "two_gaussians_2": "two Gaussians 2:1, ten deviations apart, d = 2",
    "two_gaussians_16": "d = 16",
    "two_gaussians_64": "d = 64",
    "eight_gaussians": "eight Gaussians on a circle",
    "rings": "four rings",
    "student_10": "two Student t (5 degrees), d = 10",
    "laplace_20": "20 Laplace coordinates",
    "many_well_32": "16 double wells, 65,536 modes, d = 32",
    "phi4_chain_64": "phi^4 on an interval, d = 64",
    "phi4_plane_64": "phi^4 on a square, d = 64",
    "logistic_31": "logistic regression, d = 31",
    "banana_10": "banana, d = 10",
    "rosenbrock_10": "five Rosenbrock valleys, d = 10",
    "funnel_10": "funnel, d = 10",
    "eight_schools_10": "eight schools, centred, d = 10",
}
SAMPLERS = {
    "flowmcmc": "flowmcmc",
    "blackjax_smc": "BlackJAX SMC",
    "blackjax_chees": "BlackJAX ChEES",
    "blackjax_meads": "BlackJAX MEADS",
    "numpyro_nuts": "NumPyro NUTS",
    "flowmc": "flowMC",
    "pocomc": "pocoMC",
}


def tables(rows: list[dict], budget: float) -> str:
    """Effective draws per CPU second of all samplers, then the errors of ours, in Markdown."""
    of = partial(select, rows, budget)
    samplers = {key: name for key, name in SAMPLERS.items() if any(of(target, key) for target in NAMES)}
    lines = header("target", *samplers.values())
    for target, name in NAMES.items():
        lines.append(row(name, *(cell(of(target, sampler)) for sampler in samplers)))
    first_draws = "first 100,000 draws, CPU s"
    lines += [
        "",
        *header("target", "seeds", "r-hat", "error of a mode weight", "of a variance", first_draws, "overall"),
    ]
    for target, name in NAMES.items():
        if ours := of(target, "flowmcmc"):
            first = np.median([r["cpu_seconds_to_first_draws"] for r in ours])
            weight = f"{worst(ours, 'weight_error'):.4f}" if "weight_error" in ours[0] else ""
            variance = f"{100 * worst(ours, 'variance_error'):.1f} %" if target != "phi4_plane_64" else ""
            rhat = f"{worst(ours, 'rhat'):.3f}"
            lines.append(row(name, len(ours), rhat, weight, variance, f"{first:.0f}", f"{overall(ours):,.0f}"))
    return "\n".join(lines)


def over_budgets(rows: list[dict]) -> str:
    """Ours beside the best of the others at each budget, in Markdown, for targets with more than one."""
    budgets = sorted({r["budget"] for r in rows})
    heads = [head for budget in budgets for head in (f"{budget:g} s: ours", "best other")]
    lines = header("target", *heads)
    for target, name in NAMES.items():
        cells = []
        for budget in budgets:
            mine = {s: select(rows, budget, target, s) for s in SAMPLERS}
            others = {s: rate(found) for s, found in mine.items() if s != "flowmcmc" and rate(found) is not None}
            best = max(others, key=lambda s: others[s], default=None)
            cells += [cell(mine["flowmcmc"]), f"{cell(mine[best])}, {SAMPLERS[best]}" if best else "-"]
        if sum(ours != "-" for ours in cells[::2]) > 1:
            lines.append(row(name, *cells))
    return "\n".join(lines)


def row(*cells) -> str:
    """Of a table in Markdown."""
    return "| " + " | ".join(map(str, cells)) + " |"


def header(*heads: str) -> list[str]:
    """Its first two lines."""
    return [row(*heads), "|---" * len(heads) + "|"]


def curves(rows: list[dict], path) -> None:
    """Effective draws per CPU second over the CPU seconds spent, a panel for each target with more than one budget."""
    import matplotlib.pyplot as plt

    shown = [t for t in NAMES if len({r["budget"] for r in rows if (r["target"], r["sampler"]) == (t, "flowmcmc")}) > 1]
    columns = 3
    figure, axes = plt.subplots(
        -(-len(shown) // columns),
        columns,
        figsize=(11, 2.6 * -(-len(shown) // columns)),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    for target, axis in zip(shown, axes.flat):
        for index, (sampler, label) in enumerate(SAMPLERS.items()):
            points = []
            for budget in sorted({r["budget"] for r in rows}):
                found = select(rows, budget, target, sampler)
                if (value := rate(found)) is not None:
                    points.append((float(np.median([r["cpu_seconds"] for r in found])), value, bool(faults(found))))
            if points:
                x, y, wrong = map(np.array, zip(*points))
                axis.plot(x, y, color=f"C{index}", label=label, linewidth=2.5 if sampler == "flowmcmc" else 1)
                axis.scatter(x[~wrong], y[~wrong], color=f"C{index}", s=25)
                axis.scatter(x[wrong], y[wrong], edgecolors=f"C{index}", facecolors="white", s=25, zorder=3)
        axis.title.set_fontsize(9)
        axis.set(
            xscale="log",
            yscale="log",
            title=f"two Gaussians, {NAMES[target]}" if NAMES[target].startswith("d = ") else NAMES[target],
        )
        axis.set_xticks([20, 60, 180], ["20", "60", "180"], minor=False)
        axis.minorticks_off()
    handles = {h.get_label(): h for axis in axes.flat[: len(shown)] for h in axis.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
    figure.supxlabel("CPU seconds of the whole process")
    figure.supylabel("effective draws per CPU second")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def select(rows: list[dict], budget: float, target: str, sampler: str) -> list[dict]:
    """The seeds of one cell."""
    return [r for r in rows if (r["budget"], r["target"], r["sampler"]) == (budget, target, sampler)]


def rate(rows: list[dict]) -> float | None:
    """Median over seeds of effective draws per CPU second."""
    rates = [r["ess"] / r["cpu_seconds"] for r in rows if r["ess"]]
    return float(np.median(rates)) if rates else None


def overall(rows: list[dict]) -> float:
    """Effective draws per CPU second from the overall mean of each run, 1 / mean over seeds and coordinates of z^2."""
    z = np.array([r["z_overall"] for r in rows])
    return float(1 / np.mean(z**2) / np.median([r["cpu_seconds"] for r in rows]))


def faults(rows: list[dict]) -> list[str]:
    """What is wrong with the draws: a mode weight by more than 0.01, a variance by more than 5 %."""
    found = []
    if (weight := worst(rows, "weight_error")) > 0.01:
        found.append(f"weight {weight:.2f} off")
    if (variance := worst(rows, "variance_error")) > 0.05:
        found.append(f"variance {100 * variance:.0f} % off")
    return found


def cell(rows: list[dict]) -> str:
    """Median rate, and what is wrong with the draws if it is much."""
    if (value := rate(rows)) is None:
        return "-"
    wrong = faults(rows)
    return (f"{value:,.0f}" if value >= 10 else f"{value:.2g}") + (f" ({', '.join(wrong)})" if wrong else "")


def worst(rows: list[dict], field: str) -> float:
    """Largest value of a field over seeds; 0 where it is not known."""
    return max((r[field] for r in rows if r.get(field) is not None), default=0.0)
