"""The tables of the README from stored records."""

import numpy as np

NAMES = {
    "two_gaussians_2": "two Gaussians 2:1, ten deviations apart, d = 2",
    "two_gaussians_16": "d = 16",
    "two_gaussians_64": "d = 64",
    "eight_gaussians": "eight Gaussians on a circle",
    "rings": "four rings",
    "student_10": "two Student t (5 degrees), d = 10",
    "many_well_32": "16 double wells, 65,536 modes, d = 32",
    "phi4_chain_64": "phi^4 on an interval, d = 64",
    "phi4_plane_64": "phi^4 on a square, d = 64",
    "logistic_31": "logistic regression, d = 31",
    "banana_10": "banana, d = 10",
    "funnel_10": "funnel, d = 10",
    "eight_schools_10": "eight schools, centred, d = 10",
}
SAMPLERS = {
    "flowmcmc": "flowmcmc",
    "blackjax_smc": "BlackJAX SMC",
    "blackjax_chees": "BlackJAX ChEES",
    "numpyro_nuts": "NumPyro NUTS",
    "flowmc": "flowMC",
    "pocomc": "pocoMC",
}


def tables(rows: list[dict], budget: float) -> str:
    """Effective draws per CPU second of all samplers, then the errors of ours, in Markdown."""

    def of(target, sampler):
        return [r for r in rows if (r["target"], r["sampler"], r["budget"]) == (target, sampler, budget)]

    samplers = {key: name for key, name in SAMPLERS.items() if any(of(target, key) for target in NAMES)}
    lines = ["| target | " + " | ".join(samplers.values()) + " |", "|---" * (1 + len(samplers)) + "|"]
    for target, name in NAMES.items():
        cells = [cell(of(target, sampler)) for sampler in samplers]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| target | seeds | r-hat | error of a mode weight | of a variance | first 100,000 draws, CPU s |"]
    lines += ["|---|---|---|---|---|---|"]
    for target, name in NAMES.items():
        if ours := of(target, "flowmcmc"):
            first = np.median([r["cpu_seconds_to_first_draws"] for r in ours])
            weight = f"{worst(ours, 'weight_error'):.4f}" if "weight_error" in ours[0] else ""
            variance = f"{100 * worst(ours, 'variance_error'):.1f} %" if target != "phi4_plane_64" else ""
            lines.append(f"| {name} | {len(ours)} | {worst(ours, 'rhat'):.3f} | {weight} | {variance} | {first:.0f} |")
    return "\n".join(lines)


def cell(rows: list[dict]) -> str:
    """Median rate, and what is wrong with the draws if it is much."""
    rates = [r["ess"] / r["cpu_seconds"] for r in rows if r["ess"]]
    if not rates:
        return "-"
    rate = float(np.median(rates))
    wrong = []
    if (weight := worst(rows, "weight_error")) > 0.01:
        wrong.append(f"weight {weight:.2f} off")
    if (variance := worst(rows, "variance_error")) > 0.05:
        wrong.append(f"variance {100 * variance:.0f} % off")
    return f"{rate:,.0f}" if rate >= 10 and not wrong else f"{rate:,.3g}" + (f" ({', '.join(wrong)})" if wrong else "")


def worst(rows: list[dict], field: str) -> float:
    """Largest value of a field over seeds; 0 where it is not known."""
    return max((r[field] for r in rows if r.get(field) is not None), default=0.0)
