"""What every stored result says of where it was run."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("flowmcmc", "jax", "blackjax", "numpyro", "flowMC", "pocomc")


def known_versions() -> dict[str, str | None]:
    """Of the packages that are installed."""
    return {package: known_version(package) for package in PACKAGES}


def known_version(package: str) -> str | None:
    """Of one package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict:
    """CPUs, kind and Python."""
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}


def run_alone(file: str, *arguments, environment: dict | None = None):
    """What ``python file arguments`` prints as its last line, in JSON; ends this process if that one fails."""
    command = [sys.executable, file, *map(str, arguments)]
    out = subprocess.run(command, capture_output=True, text=True, env=environment)
    if out.returncode:
        raise SystemExit(out.stderr)
    return json.loads(out.stdout.splitlines()[-1])


def store(path: Path, file: str, rows: list[dict]) -> None:
    """Rows of ``python benchmarks/file``, with versions and machine."""
    record = {"command": f"python benchmarks/{Path(file).name}", "versions": known_versions(), "machine": machine()}
    path.write_text(json.dumps(record | {"rows": rows}) + "\n")


def compile_seconds() -> list[float]:
    """A list that grows by the seconds of each of JAX's compilations from now on."""
    import jax

    found = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: found.append(duration_secs) if "/jax/core/compile" in event else None
    )
    return found
