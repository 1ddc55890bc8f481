"""What the README shows runs, and the package imports lightly."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(code, folder):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_the_example_runs_and_is_right(tmp_path):
    done = run(EXAMPLES[0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No problem found" in done.stdout
    weight = float(re.search(r"mode 0: weight ([\d.]+)", done.stdout)[1])
    assert abs(weight - 2 / 3) < 0.01
    assert (tmp_path / "draws.nc").stat().st_size > 0


@pytest.mark.slow
def test_the_example_of_long_runs(tmp_path):
    code = EXAMPLES[0].replace("sample(1, logdensity, wide)", "sample(1, logdensity, wide, num_samples=10)")
    code = code.replace("print(flowmcmc.summary(result))", "") + EXAMPLES[1].replace("10_000", "2000")
    done = run(code + "print(result.settings['stopped'])", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "log Z = " in done.stdout and "targets met" in done.stdout


@pytest.mark.slow
def test_the_example_of_devices(tmp_path):
    code = EXAMPLES[0].split("result =")[0] + EXAMPLES[2].replace("mesh=mesh", "mesh=mesh, num_samples=10")
    done = run(code + "print(result.trace.position.shape, result.state.position.sharding.mesh == mesh)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(10, 128, 2) True"


@pytest.mark.slow
def test_the_numpyro_examples_run_and_are_right(tmp_path):
    code = EXAMPLES[3].replace("bridge.prior)", "bridge.prior, num_samples=200, progress_bar=False)")
    code += EXAMPLES[4].replace(
        "num_warmup=400, num_samples=500", "num_warmup=100, num_samples=100, progress_bar=False"
    )
    code += "\nprint('gap', float(tree.posterior.gap.mean()), mcmc.get_samples()['gap'].mean())"
    code += "\nprint('first larger', float((tree.posterior.mu[..., 0] > tree.posterior.mu[..., 1]).mean()))"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    gaps = [float(x) for x in re.search(r"gap ([\d.]+) ([\d.]+)", done.stdout).groups()]
    assert abs(gaps[0] - 6.07) < 0.1 and abs(gaps[1] - 6.07) < 0.1  # the two halves of the data are 6.07 apart
    assert abs(float(re.search(r"larger ([\d.]+)", done.stdout)[1]) - 0.5) < 0.05


@pytest.mark.slow
def test_the_energy_based_example_runs_and_is_right(tmp_path):
    code = EXAMPLES[5]
    code += "\nprint('weight', ebm.grid_mode_weights(ebm.grid(model, fit.theta, low=-9, high=9), "
    code += "lambda x: (x[:, 0] > 0).astype(int))[1])\n"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "log Z =" in done.stdout
    assert abs(float(re.search(r"weight ([\d.]+)", done.stdout)[1]) - 2 / 3) < 0.02


def test_import_loads_neither_numpyro_nor_matplotlib_nor_arviz(tmp_path):
    done = run(
        "import sys, flowmcmc, ebm; print([m for m in ('numpyro', 'matplotlib', 'arviz') if m in sys.modules])",
        tmp_path,
    )
    assert done.stdout.strip() == "[]", done.stderr
