"""What the README shows runs, and the package imports lightly."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def run(code, folder):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment)


def test_the_example_runs_and_is_right(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No problem found" in done.stdout
    weight = float(re.search(r"mode 0: weight ([\d.]+)", done.stdout)[1])
    assert abs(weight - 2 / 3) < 0.01
    assert (tmp_path / "draws.nc").stat().st_size > 0


def test_import_loads_neither_numpyro_nor_matplotlib_nor_arviz(tmp_path):
    done = run(
        "import sys, flowmcmc; print([m for m in ('numpyro', 'matplotlib', 'arviz') if m in sys.modules])", tmp_path
    )
    assert done.stdout.strip() == "[]", done.stderr
