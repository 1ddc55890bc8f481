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


def compile_seconds() -> list[float]:
    """A list that grows by the seconds of each of JAX's compilations from now on."""
    import jax

    found = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: found.append(duration_secs) if "/jax/core/compile" in event else None
    )
    return found
