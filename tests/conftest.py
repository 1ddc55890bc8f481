"""Settings under which every test runs: double precision, compiled programs kept on disk."""

import os

import jax

jax.config.update("jax_enable_x64", True)
if directory := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_compilation_cache_dir", directory)
    seconds = float(os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
