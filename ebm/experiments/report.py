"""Stored runs as a table beside the paper's numbers: medians and ranges over seeds, and the ratio paper / ours."""

import json
from pathlib import Path

import numpy as np

from ebm.experiments.figures import DIMENSIONS, PAPER_RHAT, figures

__all__ = ["figures", "markdown_table", "outcome", "planned_runs", "read_records"]

# arXiv 2306.00684: Fig. 1 (read off), Tables 1 to 3
PAPER = {
    ("A", "flow", "sd of the weight"): 0.022,
    ("A", "ula", "sd of the weight"): 0.41,
    ("gaussians", "flow", "squared log density error"): 0.94,
    ("gaussians", "ula", "squared log density error"): 1.86,
    ("gaussians", "nt", "squared log density error"): 0.97,
    ("gaussians", "coop", "squared log density error"): 58.75,
    ("rings", "flow", "squared log density error"): 0.40,
    ("rings", "ula", "squared log density error"): 5.39,
    ("rings", "nt", "squared log density error"): 0.62,
    ("rings", "coop", "squared log density error"): 7.78,
    ("B", "flow", "E vs data"): 4.29e-4,
    ("B", "ula", "E vs data"): 1.24e-3,
    ("B", "nt", "E vs data"): 9.87e-4,
    ("B", "coop", "E vs data"): 1.24e-1,
    ("B", "flow", "negatives vs E"): 3.12e-5,
    ("B", "ula", "negatives vs E"): 1.79e-3,
    ("B", "nt", "negatives vs E"): 3.85e-4,
    **{(f"D{d}", m, "r-hat"): v for m, values in PAPER_RHAT.items() for d, v in zip(DIMENSIONS, values)},
}


def planned_runs(num_seeds: int) -> list[tuple[str, str, int]]:
    """(experiment, method, seed) of every run kept in the repository, whole seeds first."""
    baselines = ["nce-normal", "nce-mixture", "nce-mixed", "discrepancy"]
    growing = [f"D{d}{kind}" for d in DIMENSIONS for kind in ("", "-stated", "-wide", "-unequal")]
    pairs = [(name, "flow") for name in ("A", "B", "gaussians", "rings", *growing)]
    pairs += [("A", method) for method in ("ula", *baselines)]
    pairs += [("B", method) for method in ("ula", "nt", "coop", "nce-normal", "nce-mixed", "discrepancy")]
    pairs += [(name, method) for name in ("gaussians", "rings") for method in ("ula", "nt", "coop")]
    pairs += [(f"D{d}-unequal", method) for d in DIMENSIONS for method in baselines]
    pairs += [(f"D{d}", method) for d in DIMENSIONS for method in ("ula", "nt")]
    return [(*pair, seed) for seed in range(num_seeds) for pair in pairs]


def read_records(folder: Path) -> list[dict]:
    """All records of a folder."""
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*-*-[0-9]*.json"))]


def table_entries(record: dict) -> dict[str, float | None]:
    """Quantities of one run that the table shows, by name."""
    found: dict[str, float | None] = {}
    name, curve = record["experiment"], record["curve"]
    if name == "A":
        # the last 50 of 75 epochs
        late = curve[len(curve) // 3 :]
        for label, key in (("weight", "weights"), ("raw weight", "weights_raw")):
            path = [look[key][1] for look in late]
            found |= {f"mean {label}": float(np.mean(path)), f"sd of the {label}": float(np.std(path))}
    if name == "B":
        weights = np.array(record["weights"])
        found["E vs data"] = float(np.mean((weights - record["data_weights"]) ** 2))
        if "chains" in curve[-1]:
            negatives = np.mean([look["chains"] for look in curve[-len(curve) // 10 :]], axis=0)
            found["negatives vs E"] = float(np.mean((weights - negatives) ** 2))
            found["fresh chains vs E"] = float(np.mean((weights - record["fresh_weights"]) ** 2))
    if name in ("gaussians", "rings"):
        found["squared log density error"] = record["median_squared_error"]
        found["on a grid"] = record["median_squared_error_grid"]
    if record.get("rhat_fresh") and name.startswith("D"):
        found["r-hat"] = record["rhat_fresh"]
    found["weight error (TV)"] = record["total_variation"]
    found["KL"] = record["kl"]
    if record.get("flow_kl") is not None:
        found["KL of the flow"] = record["flow_kl"]
    return found


def markdown_table(records: list[dict]) -> str:
    """Markdown: for each experiment, method and quantity the median, the range, the paper's number and the ratio."""
    lines = [
        "| experiment | method | quantity | median | range | seeds | paper | paper / ours | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    pairs = dict.fromkeys((record["experiment"], record["method"]) for record in records)
    for name, method in sorted(pairs, key=sort_key):
        mine = [record for record in records if (record["experiment"], record["method"]) == (name, method)]
        shown = [table_entries(record) for record in mine]
        seconds = float(np.median([record["training_cpu_seconds"] for record in mine]))
        for quantity in dict.fromkeys(quantity for row in shown for quantity in row):
            there = [row[quantity] for row in shown if quantity in row]
            values = [value for value in there if value is not None]
            if len(values) < len(there):
                lines.append(f"| {name} | {method} | {quantity} | not finite | | {len(there)} | | | {seconds:.0f} |")
                continue
            median, paper = float(np.median(values)), PAPER.get((name, method, quantity))
            ratio = f"{paper / median:.3g}" if paper and quantity != "r-hat" and median else ""
            cells = [
                name,
                method,
                quantity,
                f"{median:.4g}",
                f"{min(values):.4g} - {max(values):.4g}",
                str(len(values)),
            ]
            cells += ["" if paper is None else f"{paper:.4g}", ratio, f"{seconds:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sort_key(pair: tuple[str, str]):
    """Sort key: experiments in the paper's order, dimensions ascending, our method first."""
    name, method = pair
    first = ["A", "B", "gaussians", "rings"]
    place = first.index(name) if name in first else len(first)
    stem, _, kind = name.partition("-")
    return place, kind, int(stem[1:]) if place == len(first) else 0, method != "flow", method


def outcome(record: dict) -> str:
    """Text that describes the outcome of one run."""
    lines = [f"{record['experiment']}, {record['method']}, seed {record['seed']}: {record['num_steps']} updates"]
    lines += [f"  {name}: {value:.4g}" for name, value in table_entries(record).items() if value is not None]
    lines.append("  mode weights: " + " ".join(f"{w:.4f}" for w in record["weights"]))
    lines.append("  truth:        " + " ".join(f"{w:.4f}" for w in record["truth"]))
    lines += [f"  log Z: {problem}" for problem in record.get("log_z_problems", [])]
    lines.append(f"  CPU seconds: training {record['training_cpu_seconds']:.0f}, in all {record['cpu_seconds']:.0f}")
    return "\n".join(lines)
