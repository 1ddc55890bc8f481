"""A report of a run in one file; of a bad run it looks bad."""

import os
import re
import sys
from dataclasses import replace

import arviz as az
import jax
import numpy as np
import pytest
from support.trees import CENTRES, tree_of

import flowmcmc


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
    monkeypatch.setattr(sys.modules["flowmcmc.plots.report"], "page_html", lambda *_: pytest.fail("worked in vain"))
    with pytest.raises(FileNotFoundError, match="make it first"):
        result.plot_report(tmp_path / "nowhere" / "report.html")
    with pytest.raises(IsADirectoryError, match=r"report\.html"):
        result.plot_report(tmp_path)


def test_a_report_that_fails_leaves_the_old_one(result, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["flowmcmc.plots.report"], "page_html", fail)
    with pytest.raises(KeyboardInterrupt):
        result.plot_report(tmp_path / "report.html")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "old")]
