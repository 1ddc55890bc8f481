"""Golden runs: small whole runs whose flow, number of rounds and first draws must not change when code only moves.

    python tests/support/golden.py            compare every run with golden.json, print what differs
    python tests/support/golden.py --write    store them anew, after a change that is meant to alter draws
    python tests/support/golden.py NAME ...   these runs only

Bits depend on the processor and on the versions of JAX and BlackJAX, so these are stored beside the hashes; elsewhere
only the flow that was taken is compared.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

STORED = Path(__file__).with_name("golden.json")


def machine() -> dict[str, str]:
    """What the bits of a run depend on beside the code."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        model = next((line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line), model)
    return {"processor": model} | {name: version(name) for name in ("jax", "jaxlib", "blackjax", "optax", "flax")}


def digest(tree) -> str:
    """SHA-256 of the bytes of all leaves, 16 characters of it."""
    import jax
    import numpy as np

    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return found.hexdigest()[:16]


def of_result(result) -> dict:
    """Flow, rounds of warm-up, and hashes of the draws and of the warm-up's step sizes."""
    return {
        "flow": result.settings["flow"],
        "rounds": len(result.warmup.info.step_size),
        "draws": digest(result.trace.position),
        "step sizes": digest(result.warmup.info.step_size),
    }


def default_run(make_target, seed=0, **options) -> dict:
    """`sample` from a wide normal, 20 draws."""
    import flowmcmc

    logdensity, start = make_target()
    return of_result(flowmcmc.sample(seed, logdensity, start, **{"num_samples": 20, "progress_bar": False} | options))


def wide(dim, scale):
    import jax.numpy as jnp

    import flowmcmc

    return flowmcmc.normal(jnp.zeros(dim), scale=scale)


def two_gaussians():
    import jax.numpy as jnp

    def logdensity(x):
        return jnp.logaddexp(jnp.log(2.0) - 0.5 * jnp.sum((x - 3.5) ** 2), -0.5 * jnp.sum((x + 3.5) ** 2))

    return logdensity, wide(2, 10.0)


def wells():
    import jax.numpy as jnp

    return lambda x: jnp.sum(-(x**4) + 6 * x**2 + x / 2), wide(8, 3.0)


def funnel():
    import jax.numpy as jnp

    return lambda x: -(x[0] ** 2) / 18 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 2.0 * x[0], wide(5, 10.0)


def rosenbrock():
    import jax.numpy as jnp

    return lambda x: jnp.sum(-((x[::2] - 1) ** 2) / 20 - 5 * (x[1::2] - x[::2] ** 2) ** 2), wide(4, 20.0)


def rotated_funnel():
    import jax.numpy as jnp

    def logdensity(x):
        v, w = (x[0] + x[1]) / 2**0.5, (x[0] - x[1]) / 2**0.5
        return -(v**2) / 18 - 0.5 * w**2 * jnp.exp(-v) - 0.5 * v

    return logdensity, wide(2, 10.0)


def student():
    import jax.numpy as jnp

    return lambda x: -3.0 * jnp.log1p(jnp.sum((x - 1) ** 2) / 5), wide(5, 10.0)


def given_dict():
    import jax
    import jax.numpy as jnp

    import flowmcmc

    def logdensity(p):
        ridge = jnp.sum((p["b"] - jnp.stack([p["a"], 0.5 * p["a"] ** 2])) ** 2) / 0.5
        return -0.5 * (p["a"] - 1) ** 2 - ridge + jnp.sum(p["c"] - jnp.exp(p["c"]))

    keys = jax.random.split(jax.random.key(7), 3)
    starts = {
        "a": jax.random.normal(keys[0], (40,)),
        "b": jax.random.normal(keys[1], (40, 2)),
        "c": jax.random.normal(keys[2], (40, 1, 1)),
    }
    return of_result(
        flowmcmc.sample(1, logdensity, starts, num_samples=20, num_warmup=150, keep_warmup=True, progress_bar=False)
    )


def given_spline():
    import blackjax
    import jax
    import jax.numpy as jnp

    import flowmcmc

    logdensity, _ = two_gaussians()
    starts = 4 * jax.random.normal(jax.random.key(3), (32, 2))
    flow = flowmcmc.spline_flow(jnp.zeros(2), num_layers=2, hidden=8)
    result = flowmcmc.sample(
        2, logdensity, starts, flow=flow, local=blackjax.mala, num_warmup=60, num_samples=20, progress_bar=False
    )
    return of_result(result)


def given_isir():
    import optax

    import flowmcmc

    return default_run(
        two_gaussians,
        seed=3,
        flow_kernel=partial(flowmcmc.isir, num_proposals=4),
        loss=flowmcmc.losses.pool_forward_kl,
        optimizer=optax.adam(1e-3),
        num_warmup=60,
        num_chains=40,
        num_particles=400,
    )


def given_optimizer():
    import optax

    options = {"num_warmup": 60, "num_chains": 40, "num_particles": 400}
    return default_run(two_gaussians, seed=4, optimizer=optax.adam(1e-5), **options)


def given_neutra():
    import blackjax
    import jax.numpy as jnp

    import flowmcmc

    flow = flowmcmc.real_nvp(jnp.zeros(2), num_layers=4, hidden=16, num_components=1)
    local = flowmcmc.neutra(flowmcmc.jittered(partial(blackjax.hmc, num_integration_steps=4)), flow)
    return default_run(rotated_funnel, flow=flow, local=local, num_warmup=60, num_chains=40, num_particles=400)


def numpyro_model():
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    import flowmcmc
    from flowmcmc.numpyro import from_numpyro

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 5).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2))
        halves = dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(mu, sigma))
        numpyro.sample("y", halves, obs=y)

    bridge = from_numpyro(model, jnp.array([-3.1, -2.7, -3.4, 2.8, 3.3, 3.0, -2.9, 3.1]))
    return of_result(flowmcmc.sample(0, bridge.logdensity_fn, bridge.prior, num_samples=20, progress_bar=False))


def numpyro_kernel():
    import jax
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC

    from flowmcmc.numpyro import FlowMCMC

    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    mcmc = MCMC(
        FlowMCMC(model), num_warmup=30, num_samples=20, num_chains=20, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.key(0))
    return {"flow": "given", "rounds": 30, "draws": digest(mcmc.get_samples())}


def checkpointed():
    with tempfile.TemporaryDirectory() as folder:
        options = {"checkpoint": folder, "checkpoint_every": 8, "num_chains": 40, "num_particles": 400}
        first = default_run(two_gaussians, **options)
        again = default_run(two_gaussians, **options | {"num_samples": 30})
    return first | {"resumed": again["draws"]}


def two_devices():
    import flowmcmc

    mesh = flowmcmc.chain_mesh()
    assert mesh.size == 2
    return default_run(two_gaussians, mesh=mesh, num_chains=40, num_particles=400, num_warmup=100)


def ebm_fit():
    from functools import partial

    import blackjax
    import jax
    import jax.numpy as jnp

    import ebm
    import flowmcmc

    data = jnp.where(jax.random.bernoulli(jax.random.key(5), 0.3, (600, 1)), -2.0, 2.0)
    data = data + 0.5 * jax.random.normal(jax.random.key(6), (600, 2))
    model = ebm.Model(*ebm.mlp(data[0], hidden=(16, 16)), ebm.normal(data[0], scale=3.0))
    flow = flowmcmc.gaussian_mixture(data[0], num_components=4)
    sampler = partial(flowmcmc.adaptive, local=blackjax.mala, flow=flow, refit_every=20)
    method = ebm.maximum_likelihood(model, ebm.persistent(sampler, num_chains=256, num_active=64))
    fit = ebm.fit(0, model, data, method, num_steps=60, batch_size=64, progress_bar=False)
    done = ebm.finish(1, fit, num_chains=16, num_warmup=30, num_samples=10, progress_bar=False)
    return {"flow": "given", "rounds": 60, "draws": digest(done.result.trace.position), "theta": digest(fit.theta)}


RUNS = {
    "two gaussians": partial(default_run, two_gaussians),
    "student": partial(default_run, student),
    "wells": partial(default_run, wells),
    "funnel": partial(default_run, funnel),
    "rosenbrock": partial(default_run, rosenbrock),
    "rotated funnel": partial(default_run, rotated_funnel, num_warmup=200),
    "dict": given_dict,
    "given spline": given_spline,
    "isir": given_isir,
    "optimizer": given_optimizer,
    "neutra": given_neutra,
    "numpyro model": numpyro_model,
    "numpyro kernel": numpyro_kernel,
    "checkpoint": checkpointed,
    "two devices": two_devices,
    "ebm": ebm_fit,
}


def run_alone(name: str) -> dict:
    """One run in a process of its own, in single precision; of two CPU devices where it needs them."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"} | {"JAX_PLATFORMS": "cpu"}
    environment["PJRT_NPROC"] = "1"  # sums over arrays that threads share depend on how many there are
    if name == "two devices":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    command = [sys.executable, __file__, "--one", name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"failed": done.stderr.splitlines()[-1] if done.stderr else "killed"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(RUNS[arguments.one]()))
        return 0
    stored = json.loads(STORED.read_text()) if STORED.exists() else {"machine": machine(), "runs": {}}
    here = machine()
    is_same = stored["machine"] == here
    different = 0
    for name in arguments.names or RUNS:
        found, known = run_alone(name), stored["runs"].get(name)
        if arguments.write:
            stored = {"machine": here, "runs": stored["runs"] | {name: found}}
            STORED.write_text(json.dumps(stored, indent=1) + "\n")
        is_equal = found == known if is_same else known is not None and found.get("flow") == known["flow"]
        different += not is_equal
        print(f"{name}: {'same' if is_equal else f'{found} in place of {known}'}", flush=True)
    return int(bool(different) and not arguments.write)


if __name__ == "__main__":
    sys.exit(main())
