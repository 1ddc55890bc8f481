"""What every stored result says of where it was run."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

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
