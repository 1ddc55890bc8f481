"""Rules of the house that a test can hold: which package may import which, what stays small, what says what it is."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# a package imports from those before it, and from itself; plots and bridges stand beside choosing
ORDER = (
    "base",
    "ground",
    "kernels",
    "flows",
    "running",
    "adaptation",
    "losses",
    "reading",
    "choosing",
    "plots",
    "bridges",
)
ORDER += ("numpyro", "result", "sampling", "more", "examples", "__init__", "__main__")
BESIDE = {
    "flows": ("kernels",),
    "running": ("kernels", "flows"),
    "bridges": ("plots", "choosing"),
    "plots": ("choosing",),
}
# imported inside functions: what most runs do not need
LAZY = {
    ("choosing.candidates", "flows"),
    ("result", "plots.report"),
    ("result", "reading.datatree"),
}
EBM_TAKES = ("base", "ground", "kernels.scaled", "plots.parts", "reading", "running.run")  # beside public names


def modules(package: str) -> dict[str, Path]:
    """``{"kernels.imh": path}``."""
    paths = (ROOT / package).rglob("*.py")
    return {
        ".".join(path.relative_to(ROOT / package).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imported(path: Path, package: str, *, is_lazy: bool) -> set[str]:
    """Modules of `package` that a file imports at its top, or inside functions."""
    tree, known = ast.parse(path.read_text()), modules(package)
    top = [node for part in tree.body for node in ([part, *part.body] if isinstance(part, ast.If) else [part])]
    nodes = set(ast.walk(tree)) - set(top) if is_lazy else top
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            name = (node.module or "").partition(".")[2]
            found |= {f"{name}.{alias.name}".strip(".") for alias in node.names} & set(known) or {name or "__init__"}
    return found


def closure(start: str) -> dict[str, int]:
    """Lines of each module that importing one takes, the packages' own ``__init__`` aside."""
    known, found, waiting = modules("flowmcmc"), {}, [start]
    while waiting:
        if (name := waiting.pop()) not in found:
            found[name] = len(known[name].read_text().splitlines())
            waiting += imported(known[name], "flowmcmc", is_lazy=False)
    return found


def test_imports_go_one_way():
    for name, path in modules("flowmcmc").items():
        own = name.split(".")[0]
        for other in {one.split(".")[0] for one in imported(path, "flowmcmc", is_lazy=False)} - {own}:
            assert ORDER.index(other) < ORDER.index(own) and other not in BESIDE.get(own, ()), f"{name} imports {other}"
        for other in imported(path, "flowmcmc", is_lazy=True) if own not in ("__main__", "examples") else ():
            is_below = ORDER.index(other.split(".")[0]) <= ORDER.index(own)
            assert is_below or (name, other) in LAZY, f"{name} imports {other} inside a function"


def test_the_core_stays_small():
    core, whole = closure("adaptation.adaptive"), closure("sampling")
    assert sum(core.values()) <= 1600 and sum(whole.values()) <= 5000
    assert not [name for name in core if name.split(".")[0] in ("flows", "reading", "plots", "choosing")]


def test_ebm_takes_public_names_and_little_else():
    for name, path in modules("ebm").items():
        for other in imported(path, "flowmcmc", is_lazy=False) - {"__init__"}:
            assert other.startswith(EBM_TAKES), f"ebm.{name} imports flowmcmc.{other}"


@pytest.mark.parametrize("folder", ["base", "kernels", "adaptation", "choosing", "running", "sampling", "reading"])
def test_nothing_outside_flows_looks_into_parameters(folder):
    for name, path in modules("flowmcmc").items():
        for node in ast.walk(ast.parse(path.read_text())) if name.split(".")[0] == folder else ():
            is_guess = isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "getattr",
                "hasattr",
                "isinstance",
            )
            assert not (is_guess and "params" in ast.unparse(node.args[0])), f"{name}: {ast.unparse(node)}"
            is_field = isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("params")
            assert not is_field or node.attr.startswith("_"), f"{name}: {ast.unparse(node)}"


def test_the_rule_compares_no_names_and_holds_no_numbers():
    for name in ("price", "warmup", "fitted", "shapes"):
        tree = ast.parse((ROOT / f"flowmcmc/choosing/{name}.py").read_text())
        for node in ast.walk(tree):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            assert not [s for s in sides if isinstance(s, ast.Constant) and isinstance(s.value, str)], ast.unparse(node)
            is_constant = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            assert not (is_constant and ast.unparse(node.targets[0]).isupper()), f"{name}: {ast.unparse(node)}"


def test_functions_are_simple():
    command = [sys.executable, "-m", "ruff", "check", "flowmcmc", "ebm", "--isolated", "--output-format", "concise"]
    command += [
        "--select",
        "C901,PLR0913",
        "--config",
        "lint.mccabe.max-complexity=15",
        "--config",
        "lint.pylint.max-args=8",
    ]
    if subprocess.run([*command[:3], "--version"], capture_output=True).returncode:
        pytest.skip("ruff is not installed: make lint")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    public = {
        "ebm/fitting.py",
        "ebm/judging/annealing.py",
        "flowmcmc/adaptation/adaptive.py",
        "flowmcmc/kernels/tempering.py",
        "flowmcmc/sampling.py",
    }
    assert {line.split(":")[0] for line in found if "PLR0913" in line} <= public and not [
        x for x in found if "C901" in x
    ]


def test_each_module_has_its_tests():
    for name in modules("flowmcmc"):
        package, _, module = name.rpartition(".")
        if package and package in ORDER and (ROOT / "flowmcmc" / package / f"{module}.py").exists():
            assert (ROOT / f"tests/{package}/test_{module}.py").exists(), f"tests/{package}/test_{module}.py"


def test_each_public_function_says_what_it_returns():
    from words.test_api import FUNCTIONS

    assert not [name for name, thing in FUNCTIONS.items() if "Returns\n-------" not in inspect.getdoc(thing)]
