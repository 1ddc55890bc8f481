"""The command line: your own density, the demo in small, and errors in words."""

import re

import numpy as np
import pytest

from flowmcmc.__main__ import main

MODEL = """
import jax.numpy as jnp
from jax import random

def logdensity(position):
    return -0.5 * jnp.sum(position["a"] ** 2)

def starts(rng_key, num_chains):
    return {"a": random.normal(rng_key, (num_chains, 2))}
"""
SHORT = ["--num-chains", "12", "--num-warmup", "20", "--num-samples", "40"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shell_model.py").write_text(MODEL)
    return tmp_path


def test_a_density_of_ones_own(folder, capsys):
    assert main(["sample", "shell_model:logdensity", "--starts", "shell_model:starts", *SHORT, "--output", "out"]) == 0
    assert {path.name for path in (folder / "out").iterdir()} == {
        "chains.png",
        "draws.nc",
        "report.html",
        "summary.txt",
    }
    assert "a[0]" in capsys.readouterr().out


def test_the_demo_in_small(folder, capsys):
    assert main([*SHORT, "--output", "out"]) == 0
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {"galaxies.png", "draws.nc", "nuts.nc", "report.html", "summary.txt"}
    shown = capsys.readouterr().out
    assert re.search(r"^NUTS .*\n^flowmcmc ", shown, flags=re.MULTILINE)
    import arviz as az

    masses = az.from_netcdf("out/draws.nc").posterior["mu"]
    assert np.isfinite(masses.values).all() and masses.sizes["chain"] == 12


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["sample", "shell_model", "--dim", "2"], "module:function"),
        (["sample", "shell_model:nothing", "--dim", "2"], "cannot load"),
        (["sample", "no_such_module:f", "--dim", "2"], "cannot load"),
        (["sample", "shell_model:logdensity", "--dim", "2"], "cannot be traced"),
    ],
)
def test_errors_are_words_and_a_status(folder, capsys, arguments, words):
    assert main([*arguments, "--output", "out"]) == 2
    assert words in capsys.readouterr().err


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "sample" in capsys.readouterr().out
