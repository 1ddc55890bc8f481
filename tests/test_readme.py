"""What the README shows runs, and the package imports lightly."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(code, folder):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment)


def test_the_example_runs_and_is_right(tmp_path):
    done = run(EXAMPLES[0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No problem found" in done.stdout
    weight = float(re.search(r"mode 0: weight ([\d.]+)", done.stdout)[1])
    assert abs(weight - 2 / 3) < 0.01
    assert (tmp_path / "draws.nc").stat().st_size > 0


def test_the_energy_based_example_runs_and_is_right(tmp_path):
    code = EXAMPLES[1]
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
