"""One HTML page about a run, for a colleague: verdict, table, pictures, settings, versions, all in one file."""

import base64
import io
import os
import platform
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from flowmcmc.ground.checks import check_tree
from flowmcmc.plots import plot_flow, plot_modes, plot_pairs, plot_ranks, plot_warmup
from flowmcmc.plots.parts import mode_colours
from flowmcmc.reading.diagnostics import coordinate_names
from flowmcmc.reading.summary import Summary
from flowmcmc.reading.summary import summary as summarise

__all__ = ["plot_report"]

MAX_TABLE_ROWS = 40  # of the table

CAPTIONS = {
    plot_pairs: "The first coordinates, a colour for each mode. Look for modes that you know of and do not see; a "
    "cloud cut off at a line is a wall of the density, or a place that chains did not get past.",
    plot_modes: "The mode each chain is in over time, and the mass of each mode. Good: every row changes its colour "
    "often. Bad: rows of one colour; then the masses are where chains started.",
    plot_ranks: "Ranks of each chain's draws among all draws, a row for each chain, where the ESS is smallest. "
    "Good: pale, without a pattern. Bad: rows red at some ranks and blue at others, chains that stayed there.",
    plot_flow: "Draws of the flow (orange) over those of the chains (grey), and the weights p / q of both. Good: the "
    "same shapes, weights near 0. Bad: grey without orange, and grey weights far to the right: there the flow "
    "proposes too seldom, and chains that arrive stay long.",
    plot_warmup: "Warm-up, means over chains. Good: level at the end, flow proposals accepted well above 5 %. Bad: "
    "still rising or falling at the end: warm up longer. The loss may jump where another flow takes over.",
}


def plot_report(result, path: str | Path, *, summary: Summary | None = None, title: str = "flowmcmc run") -> None:
    """Write a page with verdict, table, modes, pictures, settings and versions; images are inside the file.

    Parameters
    ----------
    result
        A `SampleResult`, whatever became of it; or a DataTree with ``posterior``, of any sampler or read from a file,
        which has no flow to draw.
    path
        The HTML file; replaced only when the new page is complete.
    summary
        What `summary` returned for this run, with modes of your own for example; made if it is None.
    title
        Heading of the page.

    Returns
    -------
    None
        The page is written to `path`.

    Raises
    ------
    OSError
        Before anything is computed, if `path` cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"path {path} is a folder: name a file in it, such as {path / 'report.html'}.")
    check_tree(getattr(result, "datatree", result))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path {path} cannot be written: there is no folder {path.parent}; make it first.")
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(page_html(result, summary, title))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def page_html(result, found: Summary | None, title: str) -> str:
    """The whole page as HTML."""
    tree = getattr(result, "datatree", result)
    sizes = tree["posterior"].sizes if "posterior" in tree.children else {"chain": 0, "draw": 0}
    has_enough = sizes["draw"] >= 4
    if has_enough:
        found = found or summarise(result)
        parts = [verdict_html(found.problems, found.verdict.splitlines()[0]), summary_html(found)]
    else:
        is_warm = "posterior" in tree.children
        why = f"{sizes['draw']} for each chain" if is_warm else "none: warm-up was interrupted"
        parts = [
            verdict_html(
                [f"there are too few draws to judge ({why}): sample again, or draw more."], "NOT to be trusted:"
            )
        ]
    parts += [
        section_html("Pictures", "\n".join(pictures_html(result, tree, found if has_enough else None))),
        section_html("Settings", listing_html(run_settings(result, tree))),
        section_html("Versions of the run", listing_html(run_versions(tree))),
        section_html("Versions that drew this page", listing_html(page_versions())),
    ]
    subtitle = f"{sizes['chain']} chains, {sizes['draw']} draws each"
    template = Template(files("flowmcmc.plots").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), subtitle=subtitle, body="\n".join(parts))


def verdict_html(problems: list[str], heading: str) -> str:
    """HTML of the verdict: a green box, or a red one that lists the problems."""
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    listed = f"<ul>{items}</ul>" if problems else ""
    return f'<div class="verdict {"bad" if problems else "good"}"><strong>{escape(heading)}</strong>{listed}</div>'


def summary_html(found: Summary) -> str:
    """HTML of arviz's table, acceptance rates and modes."""
    rows, note = found.table, ""
    if len(rows) > MAX_TABLE_ROWS:
        note = f'<p class="note">The {MAX_TABLE_ROWS} of {len(rows)} coordinates with the smallest bulk ESS.</p>'
        rows = rows.iloc[smallest_ess_rows(rows, MAX_TABLE_ROWS)]
    table = rows.to_html(border=0)
    lines = "".join(f"<li>{escape(line)}</li>" for line in found.acceptance)
    content = f'{note}<div class="scroll">{table}</div><ul>{lines}</ul>{modes_html(found.modes)}'
    return section_html("Summary", content)


def smallest_ess_rows(table, num: int) -> list[int]:
    """Indices of the `num` rows of arviz's table with the smallest or unknown bulk ESS, in the table's order."""
    ess = np.nan_to_num(table["ess_bulk"].astype(float).to_numpy(), nan=-1.0)
    return sorted(np.argsort(ess, kind="stable")[:num].tolist())


def modes_html(modes) -> str:
    """HTML table of each mode: its colour in the pictures, mass, error and visits."""
    if modes is None:
        return ""
    cells = ["mode", "weight", "error", f"visited by chains, of {modes.labels.shape[0]}", "entered, times"]
    rows = []
    for index, colour in enumerate(mode_colours(len(modes.weights))):
        red, green, blue = (round(255 * float(part)) for part in colour)
        swatch = f'<span class="swatch" style="background: rgb({red}, {green}, {blue})"></span>{index}'
        error = "unknown" if np.isnan(modes.mcse[index]) else f"{modes.mcse[index]:.4f}"
        row = (swatch, f"{modes.weights[index]:.4f}", error, modes.num_chains[index], modes.transitions[index])
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def pictures_html(result, tree, found: Summary | None) -> list[str]:
    """HTML of the pictures that the run allows, each with a caption on how to read it."""
    drawn = {}
    if found is not None:
        drawn[plot_pairs] = plot_pairs(tree, modes=found.modes)
        drawn[plot_modes] = plot_modes(tree, modes=found.modes)
        names = coordinate_names(tree)  # in the order of the table's rows
        drawn[plot_ranks] = plot_ranks(tree, coordinates=[names[row] for row in smallest_ess_rows(found.table, 4)])
        if result is not tree and result.settings["num_flow_steps"]:
            drawn[plot_flow] = plot_flow(result)
    if "warmup_history" in tree.children:
        drawn[plot_warmup] = plot_warmup(tree)
    return [
        f'<figure><img alt="{plot.__name__}" src="data:image/png;base64,{png_base64(figure)}">'
        f"<figcaption>{escape(CAPTIONS[plot])} (<code>{plot.__name__}</code>)</figcaption></figure>"
        for plot, figure in drawn.items()
    ]


def png_base64(figure) -> str:
    """The figure as a PNG in base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def run_settings(result, tree) -> dict:
    """Settings of the run and how it ended, by name."""
    known = {name: value for name, value in tree.attrs.items() if not name.endswith("_version")}
    if result is tree:
        return known
    density = result.logdensity_fn
    return {"density": getattr(density, "__qualname__", type(density).__name__)} | known


def run_versions(tree) -> dict:
    """Versions of the libraries that made the run."""
    return {name.removesuffix("_version"): value for name, value in tree.attrs.items() if name.endswith("_version")}


def page_versions() -> dict:
    """Versions of Python and of the libraries that draw this page."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("arviz", "matplotlib", "numpy")}


def section_html(heading: str, content: str) -> str:
    """HTML of a section; empty if it has no content."""
    return f"<h2>{heading}</h2>\n{content}" if content else ""


def listing_html(entries: dict) -> str:
    """HTML table with a row for each name and value."""
    shown = {
        name: f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
        for name, value in entries.items()
    }
    rows = (f"<tr><td>{escape(str(name))}</td><td>{escape(text)}</td></tr>" for name, text in shown.items())
    return f"<table><tbody>{''.join(rows)}</tbody></table>" if entries else ""
