"""Figures of stored runs: weights over training, learned energies, r-hat and quality against dimension and CPU time."""

from pathlib import Path

import numpy as np

__all__ = ["figures"]

DIMENSIONS = (16, 32, 64)
METHOD_LABELS = {
    "flow": "flow-assisted (ours)",
    "ula": "persistent ULA",
    "nt": "NT-EBM",
    "coop": "CoopFlow",
    "nce-normal": "NCE, normal noise",
    "nce-mixture": "NCE, fitted mixture noise",
    "nce-mixed": "NCE, half and half",
    "discrepancy": "energy discrepancy",
}
METHOD_COLOURS = {method: f"C{index}" for index, method in enumerate(METHOD_LABELS)}
PAPER_RHAT = {"flow": (1.01, 1.01, 1.05), "ula": (7.30, 9.29, 90.90), "nt": (2.02, 2.50, 3.10)}


def figures(records: list[dict], folder: Path) -> list[Path]:
    """Draw the figures that the records allow; return the paths of the files written."""
    import matplotlib.pyplot as plt

    written = []
    for name, draw in {
        "weight_over_training": weight_over_training,
        "learned_energies": learned_energies,
        "rhat_against_dimension": rhat_against_dimension,
        "quality_against_dimension": quality_against_dimension,
    }.items():
        figure = draw(records)
        if figure is not None:
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], dpi=110, bbox_inches="tight")
            plt.close(figure)
    return written


def weight_over_training(records):
    """Fig. 1 of the paper: the weight of the top right mode of experiment A, all seeds."""
    import matplotlib.pyplot as plt

    mine = [r for r in records if r["experiment"] == "A" and r["method"] in ("flow", "ula")]
    if not mine:
        return None
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    for record in mine:
        progress = np.array([look["step"] for look in record["curve"]]) / record["num_steps"]
        method = record["method"]
        label = METHOD_LABELS[method] if record["seed"] == 0 else None
        axis.plot(
            progress, [look["weights_raw"][1] for look in record["curve"]], METHOD_COLOURS[method], lw=0.6, alpha=0.5
        )
        axis.plot(progress, [look["weights"][1] for look in record["curve"]], METHOD_COLOURS[method], label=label)
    axis.axhline(2 / 3, color="k", ls=":", lw=1, label="truth")
    axis.set(xlabel="fraction of training", ylabel="weight of the top right mode", ylim=(-0.02, 1.02))
    axis.legend(loc="center right")
    axis.set_title("experiment A: averaged parameters (thick) and raw (thin), five seeds", fontsize=9)
    return figure


def learned_energies(records):
    """Log densities of the two-dimensional experiments side by side, seed 0."""
    import matplotlib.pyplot as plt

    from ebm.experiments.settings import EXPERIMENTS

    names, methods = ["A", "B", "gaussians", "rings"], ["flow", "ula", "nt", "coop"]
    found = {(r["experiment"], r["method"]): r["picture"] for r in records if r["seed"] == 0 and r.get("picture")}
    if not found:
        return None
    figure, axes = plt.subplots(4, 5, figsize=(10, 8), layout="constrained")
    for index, (row, name) in enumerate(zip(axes, names)):
        for axis, method in zip(row, ["truth", *methods]):
            axis.set(xticks=[], yticks=[])
            if method == "truth" and (name, "flow") in found:
                reach = found[name, "flow"]["reach"]
                side = np.linspace(-reach, reach, 60)
                points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
                log_p = np.array([EXPERIMENTS[name].target.logdensity(p) for p in points]).reshape(60, 60)
                log_p = log_p - log_p.max()
            elif (name, method) in found:
                log_p, reach = np.array(found[name, method]["log_density"]), found[name, method]["reach"]
            else:
                axis.set_axis_off()
                continue
            axis.imshow(log_p, origin="lower", extent=2 * (-reach, reach), vmin=-12, vmax=0, cmap="magma")
            if index == (method in ("nt", "coop")):  # these were not run on A
                axis.set_title(METHOD_LABELS.get(method, method), fontsize=9)
        row[0].set_ylabel(name)
    figure.suptitle("learned log densities, nats below the highest, seed 0", fontsize=10)
    return figure


def rhat_against_dimension(records):
    """Fig. 6 and Table 2 of the paper: r-hat of 128 fresh chains."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    found = False
    for method in PAPER_RHAT:
        for suffix, marker in (("", "o-"), ("-stated", "s--")):
            points = [
                (dim, record["rhat_fresh"])
                for dim in DIMENSIONS
                for record in records
                if (record["experiment"], record["method"]) == (f"D{dim}{suffix}", method) and record.get("rhat_fresh")
            ]
            if points:
                found = True
                dims = sorted({dim for dim, _ in points})
                medians = [np.median([value for d, value in points if d == dim]) for dim in dims]
                stated = ", separation as stated" if suffix else ""
                axis.plot(dims, medians, marker, color=METHOD_COLOURS[method], label=METHOD_LABELS[method] + stated)
        axis.plot(
            DIMENSIONS, PAPER_RHAT[method], "x:", color=METHOD_COLOURS[method], alpha=0.6, label=f"{method}, paper"
        )
    axis.axhline(1.01, color="k", lw=0.5)
    axis.set(xlabel="dimension", ylabel="r-hat, worst coordinate", yscale="log", xscale="log", xticks=DIMENSIONS)
    axis.set_xticks(DIMENSIONS, [str(d) for d in DIMENSIONS])
    axis.minorticks_off()
    axis.legend(fontsize=7)
    return figure if found else None


def quality_against_dimension(records):
    """D': mode weights and KL over dimension, and over CPU seconds at d = 64, beside the baselines."""
    import matplotlib.pyplot as plt

    mine = [r for r in records if r["experiment"].endswith("-unequal")]
    if not mine:
        return None
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for row, (key, name) in zip(axes, {"total_variation": "error of mode weights (TV)", "kl": "KL, nats"}.items()):
        for method in METHOD_LABELS:
            runs = [r for r in mine if r["method"] == method]
            dims = [dim for dim in DIMENSIONS if any(r["experiment"] == f"D{dim}-unequal" for r in runs)]
            if not dims:
                continue
            values = [[r[key] for r in runs if r["experiment"] == f"D{dim}-unequal"] for dim in dims]
            medians = [np.median(v) for v in values]
            spread = np.array([[m - min(v), max(v) - m] for m, v in zip(medians, values)]).T
            style = {"color": METHOD_COLOURS[method], "label": METHOD_LABELS[method], "capsize": 2}
            row[0].errorbar(dims, medians, spread, marker="o", **style)
            for index, run in enumerate(r for r in runs if r["experiment"] == "D64-unequal"):
                path = [*run["probed"], run | {"cpu": run["training_cpu_seconds"]}]
                label = METHOD_LABELS[method] if index == 0 else None
                row[1].plot(
                    [p["cpu"] for p in path], [p[key] for p in path], ".-", color=METHOD_COLOURS[method], label=label
                )
        row[0].set(xlabel="dimension", ylabel=name, yscale="log", xscale="log")
        row[0].set_xticks(DIMENSIONS, [str(d) for d in DIMENSIONS])
        row[0].minorticks_off()
        row[1].set(xlabel="CPU seconds of training, d = 64", yscale="log", xscale="log")
    axes[0, 0].legend(fontsize=7)
    figure.suptitle(
        "D': four Gaussians with weights .1 .2 .3 .4, one network and equal CPU seconds for all", fontsize=10
    )
    return figure
