"""The command line: your own density, the demo in small, and errors in words."""

import re

import numpy as np
import pytest

import flowmcmc
from flowmcmc import __main__ as shell
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


def asked(monkeypatch, arguments) -> dict:
    """What the command line hands to its commands."""
    seen = {}
    for command in ("run_demo", "run_own"):
        monkeypatch.setattr(shell, command, lambda arguments, name=command: seen.update(vars(arguments), command=name))
    assert main(arguments) == 0
    return seen


OPTIONS = ["--seed", "3", "--num-chains", "7", "--num-samples", "5", "--output", "there"]
OWN = ["shell_model:logdensity", "--dim", "2"]
ORDERS = [[*OPTIONS, "sample", *OWN], ["sample", *OWN, *OPTIONS], ["sample", *OPTIONS, *OWN]]


@pytest.mark.parametrize("arguments", ORDERS)
def test_options_stand_before_the_command_or_behind(folder, monkeypatch, arguments):
    seen = asked(monkeypatch, arguments)
    assert seen["command"] == "run_own" and (folder / "there").is_dir()
    assert {name: seen[name] for name in ("seed", "num_chains", "num_samples", "num_warmup", "dim", "spread")} == {
        "seed": 3,
        "num_chains": 7,
        "num_samples": 5,
        "num_warmup": 400,
        "dim": 2,
        "spread": 10.0,
    }


@pytest.mark.parametrize("command", [[], ["demo"]])
def test_the_demo_has_counts_of_its_own(folder, monkeypatch, command):
    seen = asked(monkeypatch, ["--seed", "3", *command])
    counts = [seen[name] for name in ("seed", "num_chains", "num_warmup", "num_samples")]
    assert seen["command"] == "run_demo" and counts == [3, 96, 600, 1000]


def test_the_command_behind_wins(folder, monkeypatch):
    assert asked(monkeypatch, ["--seed", "3", "demo", "--seed", "4"])["seed"] == 4


def test_sample_is_called_with_its_own_defaults(folder, monkeypatch, capsys):
    calls = []

    def record(*arguments, **options):
        calls.append((arguments, options))
        raise ValueError("enough")

    monkeypatch.setattr(shell, "sample", record)
    assert main(["sample", *OWN, "--seed", "1", "--output", "out"]) == 2
    assert main(["sample", OWN[0], "--starts", "shell_model:starts", "--num-chains", "12", "--output", "out"]) == 2
    defaults = {"num_chains": 100, "num_warmup": 400, "num_samples": None}
    assert [options for _, options in calls] == [defaults, defaults | {"num_chains": 12}]
    (seed, density, wide), (_, _, starts) = [arguments for arguments, _ in calls]
    assert seed == 1 and density({"a": np.ones(2)}) == -1  # the very call of the README
    at = np.array([3.0, -4.0])
    assert wide.log_prob(at) == flowmcmc.normal(np.zeros(2), scale=10.0).log_prob(at)
    assert starts["a"].shape == (12, 2)


@pytest.mark.slow
def test_a_density_of_ones_own(folder, capsys):
    assert main(["sample", "shell_model:logdensity", "--starts", "shell_model:starts", *SHORT, "--output", "out"]) == 0
    assert {path.name for path in (folder / "out").iterdir()} == {
        "chains.png",
        "draws.nc",
        "report.html",
        "summary.txt",
    }
    assert "a[0]" in capsys.readouterr().out


@pytest.mark.slow
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
