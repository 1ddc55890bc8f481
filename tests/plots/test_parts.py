"""What all pictures share: where they are saved, and that they stay outside pyplot."""

import os

import pytest

from flowmcmc import plots

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
