"""Settings under which every test runs (double precision, compiled programs kept on disk), and Ctrl-C on demand.

With ``JAX_DISABLE_MOST_OPTIMIZATIONS=1``, as in ``make test``, programs are compiled with as little effort as there is:
small ones take longer to compile than to run. `flowmcmc` asks for some effort by itself, which is taken back here.
"""

import os
import sys

import jax
import pytest

from flowmcmc.ground import compiling

jax.config.update("jax_enable_x64", True)
if directory := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_compilation_cache_dir", directory)
    seconds = float(os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
if jax.config.read("jax_disable_most_optimizations"):
    compiling.COMPILER_OPTIONS |= compiling.BRIEF_OPTIONS


@pytest.fixture
def interrupt(monkeypatch):
    """``interrupt(nth)`` presses Ctrl-C in the nth compiled chunk from then on, until ``monkeypatch.undo()``."""

    def press(nth: int) -> None:
        modules = sys.modules["flowmcmc.running.run"], sys.modules["flowmcmc.choosing.fitted"]
        compiled, calls = modules[0].compile_chunk, []

        def compile_chunk(*arguments):
            advance = compiled(*arguments)

            def call(*inputs):
                calls.append(None)
                if len(calls) == nth:
                    raise KeyboardInterrupt
                return advance(*inputs)

            return call

        for module in modules:
            monkeypatch.setattr(module, "compile_chunk", compile_chunk)

    return press
