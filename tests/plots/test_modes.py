"""Where the draws are, and how chains move between modes."""

import numpy as np
import pytest
from support.trees import CENTRES, tree_of

from flowmcmc import plots


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
