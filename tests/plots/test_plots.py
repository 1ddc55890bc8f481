"""Pictures show what the draws hold, and a report of a bad run looks bad."""

import os
import re
import sys
from dataclasses import replace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.targets import two_modes

import flowmcmc
from flowmcmc import plots
from flowmcmc.plots.flow import draw_weights
from flowmcmc.plots.parts import new_figure

SMALL = {"num_warmup": 30, "num_samples": 100, "progress_bar": False}
CENTRES = np.array([[3.0, 3.0], [-3.0, -3.0]])


def starts(num_chains=20):
    sign = jnp.where(jnp.arange(num_chains) % 2 == 0, 3.0, -3.0)[:, None]
    return sign + jax.random.normal(jax.random.key(0), (num_chains, 2))


@pytest.fixture(scope="module")
def result():
    """Positions with names, two modes."""

    def density(position):
        return two_modes(jnp.concatenate([position["<a>"][None], position["b"]["c"]]))

    positions = {"<a>": starts()[:, 0], "b": {"c": starts()[:, 1:]}}
    return flowmcmc.sample(0, density, positions, **SMALL)


@pytest.fixture(scope="module")
def stuck():
    """No flow steps: every chain stays in the mode it starts in."""
    return flowmcmc.sample(0, two_modes, starts(), num_flow_steps=0, **SMALL)


@pytest.fixture(scope="module")
def found(result):
    return flowmcmc.summary(result, modes=CENTRES)


def tree_of(draws, **attrs):
    tree = az.from_dict({"posterior": {"x": draws}})
    tree.attrs |= attrs
    return tree


def colours_in(image):
    return {tuple(colour) for colour in np.asarray(image).reshape(-1, 3)}


def test_the_run_at_a_glance_is_saved(result, found, tmp_path):
    figure = plots.plot_chains(result, tmp_path / "chains.png", modes=found.modes)
    plane, raster, bars = figure.axes
    assert (plane.get_xlabel(), plane.get_ylabel()) == ("<a>", "b.c[0]")
    assert raster.get_title() == "mode of a chain over time, 12 of 20 chains"
    np.testing.assert_allclose([bar.get_height() for bar in bars.patches], found.modes.weights)
    assert (tmp_path / "chains.png").stat().st_size > 10_000


def test_chains_that_hop_have_rows_of_many_colours(found, result, stuck):
    def colours_per_row(run, modes):
        raster = plots.plot_modes(run, modes=modes).axes[0]
        return [len(colours_in(row)) for row in raster.images[0].get_array()]

    assert colours_per_row(result, found.modes) == [2] * 20
    assert colours_per_row(stuck, CENTRES) == [1] * 20


def test_pairs_are_coloured_by_mode(result, found):
    axes = plots.plot_pairs(result, modes=found.modes).axes
    assert len(axes) == 4 and axes[2].get_ylabel() == "b.c[0]" and axes[3].get_xlabel() == "b.c[0]"
    points = axes[2].collections[0]
    positive = points.get_offsets()[:, 0] + points.get_offsets()[:, 1] > 0
    assert len(np.unique(points.get_facecolors()[positive], axis=0)) == 1
    assert len(np.unique(points.get_facecolors(), axis=0)) == 2
    assert [text.get_text()[:6] for text in axes[0].figure.legends[0].get_texts()] == ["mode 0", "mode 1"]


def test_coordinates_are_taken_by_name(result, found):
    figure = plots.plot_pairs(result, modes=found.modes, coordinates=["b.c[0]"])
    assert [axis.get_xlabel() for axis in figure.axes] == ["b.c[0]"]
    with pytest.raises(ValueError, match=r"coordinates must name some of <a>, b.c\[0\]; got \['d'\]"):
        plots.plot_pairs(result, modes=found.modes, coordinates=["d"])


def test_axes_show_rare_modes_but_not_far_tails():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(10, 1000, 1))
    draws[:, 500] += 50  # a mode of one draw in a thousand
    draws[0, 0] = 1e6
    figure = plots.plot_pairs(tree_of(draws), modes=lambda x: ((x > 40) & (x < 60))[:, 0].astype(int))
    assert figure.axes[0].get_xlim()[0] > -20 and 50 < figure.axes[0].get_xlim()[1] < 100


def test_modes_of_another_run_are_refused(found, stuck):
    longer = stuck.more(5, progress_bar=False)
    with pytest.raises(ValueError, match="more was drawn since"):
        plots.plot_modes(longer, modes=found.modes)


def test_warmup_shows_what_was_recorded(result):
    rates, losses, steps = plots.plot_warmup(result).axes
    history = result.datatree["warmup_history"]
    np.testing.assert_array_equal(rates.lines[0].get_ydata(), history["flow_acceptance_rate"])
    np.testing.assert_array_equal(steps.lines[0].get_ydata(), history["step_size"])
    assert [text.get_text() for text in losses.get_legend().get_texts()][-1] == "held-out states"
    with pytest.raises(ValueError, match="no warmup_history"):
        plots.plot_warmup(tree_of(np.zeros((2, 5, 1))))


def test_ranks_of_agreeing_chains_are_even_and_of_stuck_ones_are_not():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(30, 400, 2))
    draws[7, :, 1] += 5
    agree, differ = (axis.images[0].get_array() for axis in plots.plot_ranks(tree_of(draws)).axes[:2])
    assert agree.shape == (30, 20) and abs(agree - 1).max() < 1.2
    np.testing.assert_allclose(differ.mean(axis=1), 1)
    # chain 7 has all of its draws in the highest thirtieth of the ranks
    assert differ[7, -1] > 10 and differ[7, :10].max() == 0


def test_flow_and_chains_side_by_side(result):
    plane, first, second, weights = plots.plot_flow(result, num_draws=500).axes
    assert [axis.get_xlabel() for axis in (plane, first, second)] == ["<a>", "<a>", "b.c[0]"]
    assert len(plane.collections) == 2
    assert re.match(r"weights, ESS of the flow \d+\.\d%", weights.get_title())
    known = flowmcmc.importance(result, num_draws=500)
    assert f"{known.ess:.1%}" in weights.get_title()  # the same draws as there


def test_weights_out_of_reach_are_counted_at_the_edges():
    axis = new_figure(3, 3).subplots()
    on_chains = np.concatenate([np.zeros(90), np.full(10, 15.0)])  # where the flow is far too small
    draw_weights(axis, on_chains, np.concatenate([np.zeros(98), [-np.inf, np.nan]]))
    chains, flow = (patch.get_xy() for patch in axis.patches)
    assert chains[chains[:, 0] > 10, 1].max() == pytest.approx(0.1)
    assert flow[0, 0] < 0 and flow[:3, 1].max() == pytest.approx(0.02)
    assert axis.get_title() == "weights, ESS of the flow 98.0%"


def test_no_picture_of_a_flow_that_was_not_used(stuck, result):
    with pytest.raises(ValueError, match="num_flow_steps was 0"):
        plots.plot_flow(stuck)
    with pytest.raises(ValueError, match="interrupted"):
        plots.plot_flow(replace(result, trace=None))


def test_the_report_of_a_good_run(result, tmp_path):
    longer = result.more(400, progress_bar=False)
    longer.plot_report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<div class="verdict good"><strong>No problem found' in page
    pictures = re.findall(r'<img alt="(\w+)" src="data:image/png;base64,', page)
    assert pictures == ["plot_pairs", "plot_modes", "plot_ranks", "plot_flow", "plot_warmup"]
    assert "<td>num_samples</td><td>500</td>" in page and "<td>density</td>" in page
    assert f"<td>jax</td><td>{jax.__version__}</td>" in page and "<td>matplotlib</td>" in page
    # names are text, not markup; nothing comes from elsewhere
    assert "&lt;a&gt;" in page and "<a>" not in page
    assert "http" not in re.sub(r"base64,[^\"]*", "", page) and "<script" not in page
    assert os.listdir(tmp_path) == ["report.html"]


def test_the_report_of_a_bad_run_says_so_first(stuck, tmp_path):
    flowmcmc.plot_report(stuck, tmp_path / "bad.html", summary=flowmcmc.summary(stuck, modes=CENTRES), title="a & b")
    page = (tmp_path / "bad.html").read_text()
    assert '<div class="verdict bad"><strong>NOT to be trusted yet:' in page and "<h1>a &amp; b</h1>" in page
    assert "was never entered: its weight is where chains started." in page and "plot_flow" not in page
    assert page.index("NOT to be trusted") < page.index("<table")


@pytest.mark.parametrize("kept", [None, 2])
def test_a_report_without_enough_draws(result, tmp_path, kept):
    trace = None if kept is None else jax.tree.map(lambda leaf: leaf[:kept], result.trace)
    partial = replace(result, trace=trace, settings=result.settings | {"partial": 1})
    partial.plot_report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<div class="verdict bad">' in page and "too few draws to judge" in page
    assert "No problem found" not in page
    assert re.findall(r'<img alt="(\w+)"', page) == ["plot_warmup"]


BROKEN = {
    "NaN": (np.full((8, 50, 2), np.nan), "NaN or infinite"),
    "constant": (np.zeros((8, 50, 2)), "never moved"),
    "one chain": (np.random.default_rng(0).normal(size=(1, 50, 1)), "only 1 chain"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_report_of_broken_draws(name, tmp_path):
    draws, words = BROKEN[name]
    tree = tree_of(draws, **{"<b>": "<i>"})
    found = flowmcmc.summary(tree, modes=lambda x: np.zeros(len(x), int))
    flowmcmc.plot_report(tree, tmp_path / "report.html", summary=found)
    page = (tmp_path / "report.html").read_text()
    assert '<div class="verdict bad">' in page and words in page
    assert "<td>&lt;b&gt;</td><td>&lt;i&gt;</td>" in page


def test_a_report_of_draws_from_a_file(result, tmp_path):
    result.datatree.to_netcdf(tmp_path / "draws.nc")
    flowmcmc.plot_report(az.from_netcdf(tmp_path / "draws.nc"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'<img alt="(\w+)"', page) == ["plot_pairs", "plot_modes", "plot_ranks", "plot_warmup"]
    assert "<td>flow</td><td>mixture</td>" in page


def test_many_coordinates_show_the_worst(tmp_path):
    draws = np.random.default_rng(0).normal(size=(8, 200, 60))
    draws[3, :, 50] += 10
    tree = tree_of(draws)
    flowmcmc.plot_report(tree, tmp_path / "report.html", summary=flowmcmc.summary(tree, modes=np.zeros((1, 60))))
    page = (tmp_path / "report.html").read_text()
    assert "The 40 of 60 coordinates" in page and "<th>x[50]</th>" in page and page.count("<th>x[") == 40


def test_a_path_that_cannot_be_written_is_refused_before_any_work(result, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["flowmcmc.plots.report"], "page", lambda *_: pytest.fail("worked in vain"))
    with pytest.raises(FileNotFoundError, match="make it first"):
        result.plot_report(tmp_path / "nowhere" / "report.html")
    with pytest.raises(IsADirectoryError, match=r"report\.html"):
        result.plot_report(tmp_path)


def test_a_report_that_fails_leaves_the_old_one(result, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["flowmcmc.plots.report"], "page", fail)
    with pytest.raises(KeyboardInterrupt):
        result.plot_report(tmp_path / "report.html")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "old")]


PLOTS = [getattr(plots, name) for name in plots.__all__]


@pytest.mark.parametrize("plot", PLOTS)
def test_a_picture_that_cannot_be_saved_is_refused_before_any_work(plot, tmp_path, monkeypatch):
    """Before the run is looked at, even: this one could not be drawn."""
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; make it first"):
        plot("no run", tmp_path / "nowhere" / "picture.png")
    with pytest.raises(IsADirectoryError, match=r"is a folder: name a file in it, such as .*picture\.png"):
        plot("no run", str(tmp_path))
    with pytest.raises(ValueError, match=r"picture\.xyz has a suffix of no known picture format: .*pdf, .*png"):
        plot("no run", tmp_path / "picture.xyz")
    with pytest.raises(TypeError, match=r"path must name a file, such as 'picture\.png'; got 3"):
        plot("no run", 3)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="may not be written by this user"):
        plot("no run", tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_goes_to_an_open_file_too(result, tmp_path):
    with open(tmp_path / "picture", "wb") as file:
        plots.plot_warmup(result, file)
    plots.plot_warmup(result, tmp_path / "picture.PDF")
    assert (tmp_path / "picture").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "picture.PDF").read_bytes()[1:4] == b"PDF"


@pytest.mark.parametrize(
    "plot, option",
    [
        (plots.plot_modes, "num_chains"),
        (plots.plot_chains, "num_chains"),
        (plots.plot_ranks, "num_bins"),
        (plots.plot_flow, "num_draws"),
    ],
)
def test_counts_of_nothing_are_refused(plot, option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        plot("no run", **{option: 0})
    with pytest.raises(TypeError, match=f"{option} must be an integer, got 2.5"):
        plot("no run", **{option: 2.5})


def test_pictures_stay_outside_pyplot(result, found):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()  # another test's, perhaps
    plots.plot_pairs(result, modes=found.modes)
    assert plt.get_fignums() == before
