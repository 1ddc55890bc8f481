"""A kernel for ``numpyro.infer.MCMC``: flow proposals and local moves on all chains, driven by NumPyro."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model

from flowmcmc.adaptation.adaptive import AdaptiveState, adaptive
from flowmcmc.adaptation.frozen import freeze
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity
from flowmcmc.flows import real_nvp

__all__ = ["FlowMCMC", "FlowMCMCState", "check_numpyro_model"]


class FlowMCMCState(NamedTuple):
    """NumPyro's view of a round: index `i`, positions `z` and, each with the chain axis, what the round did."""

    i: Array
    z: Any
    potential_energy: Array
    diverging: Array
    accept_prob: Array
    flow_accept_prob: Array
    adaptive: AdaptiveState
    rng_key: Array


class FlowMCMC(MCMCKernel):
    """Flow proposals and local moves as a kernel of ``numpyro.infer.MCMC``, warm-up adapting, draws exact.

    Chains start by NumPyro's `init_strategy`, or at the ``init_params`` given to ``run``. It does NOT search for modes:
    no sequential Monte Carlo comes first, and a mode far from all starts is missed. `from_numpyro` with
    `flowmcmc.sample` searches from the prior.

    Use ``MCMC(FlowMCMC(model), num_warmup=400, num_samples=1000, num_chains=100, chain_method="vectorized")``: all
    chains share the flow. Extra fields: ``potential_energy``, ``diverging``, ``accept_prob`` (local),
    ``flow_accept_prob``. ``arviz.from_numpyro`` reads the result, but no names with a slash: give NumPyro's ``scope``
    a ``divider="."``.

    Parameters
    ----------
    model
        A NumPyro model with continuous latent sites.
    local
        As in `flowmcmc.adaptive`.
    flow
        ``position -> Flow``, of one unconstrained position; None: `real_nvp`.
    init_strategy
        NumPyro's; by default uniform on (-2, 2).
    options
        Of `flowmcmc.adaptive`: ``num_local_steps``, ``num_flow_steps``, ``num_train_steps``...
    """

    def __init__(
        self,
        model: Callable,
        *,
        local: LocalKernel = blackjax.mala,
        flow: Callable[[Any], Flow] | None = None,
        init_strategy: Callable = init_to_uniform,
        options: dict | None = None,
    ):
        self._model, self.local, self.make_flow = model, local, flow or real_nvp
        self.init_strategy, self.options = init_strategy, options or {}
        self._sample_fn = None
        self._flow, self._potential_fn, self._postprocess_fn, self.num_warmup = None, None, None, 0

    @property
    def model(self):
        """The NumPyro model."""
        return self._model

    @property
    def sample_field(self) -> str:
        """Name of the state's field that holds the draws."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, str]:
        """Fields of the state that NumPyro collects by default."""
        return ("z", "diverging")

    @property
    def is_ensemble_kernel(self) -> bool:
        """True: one state holds all chains."""
        return True

    def get_diagnostics_str(self, state: FlowMCMCState) -> str:
        """Mean acceptance of either kind of step, for NumPyro's progress bar."""
        return f"acceptance: local {jnp.mean(state.accept_prob):.2f}, flow {jnp.mean(state.flow_accept_prob):.2f}"

    def init(self, rng_key, num_warmup, init_params=None, model_args=(), model_kwargs=None) -> FlowMCMCState:
        """First state of all chains.

        Raises
        ------
        ValueError
            For one chain, chains that run separately, no warm-up, or a model that `check_numpyro_model` refuses.
        """
        model_kwargs = model_kwargs or {}
        if rng_key.ndim != (0 if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key) else 1) + 1 or len(rng_key) < 2:
            raise ValueError(
                "FlowMCMC moves all chains together: give MCMC num_chains=100 (2 or more) and "
                'chain_method="vectorized"; "parallel" and "sequential" would train a flow for each chain alone.'
            )
        if num_warmup < 1:
            raise ValueError(f"num_warmup must be at least 1, got {num_warmup}: the flow learns only there.")
        check_numpyro_model(self._model, model_args, model_kwargs)
        chains = len(rng_key)
        key_init, key_start, key_run = jax.random.split(rng_key[0], 3)
        info = initialize_model(
            jax.random.split(key_init, chains),
            self._model,
            dynamic_args=True,
            model_args=model_args,
            model_kwargs=model_kwargs,
            validate_grad=False,
            init_strategy=self.init_strategy,
        )
        z = info.param_info.z if init_params is None else init_params
        self._flow = self.make_flow(jax.tree.map(lambda leaf: leaf[0], z))
        self._potential_fn, self._postprocess_fn = info.potential_fn, info.postprocess_fn
        self.num_warmup, self._sample_fn = num_warmup, True
        logdensity_fn = self.logdensity(model_args, model_kwargs)
        state = self.warming(logdensity_fn).init(z, key_start)
        nothing = jnp.zeros(chains)
        energy = -jax.vmap(logdensity_fn)(z)
        return FlowMCMCState(jnp.array(0), z, energy, nothing > 0, nothing, nothing, state, key_run)

    def logdensity(self, model_args, model_kwargs) -> LogDensity:
        """Log density of the model with these arguments."""
        assert self._potential_fn is not None
        potential = self._potential_fn(*model_args, **model_kwargs)
        return lambda position: -potential(position)

    def warming(self, logdensity_fn: LogDensity):
        """The adaptive sampler, which runs during warm-up."""
        return adaptive(logdensity_fn, self.local, self._flow, **self.options)

    def sample(self, state: FlowMCMCState, model_args, model_kwargs) -> FlowMCMCState:
        """One round of all chains: adaptive while ``i < num_warmup``, then frozen."""
        logdensity_fn = self.logdensity(model_args, model_kwargs)
        key = jax.random.fold_in(state.rng_key, state.i)
        names = ("num_local_steps", "num_flow_steps", "flow_kernel")
        options = {name: value for name, value in self.options.items() if name in names}

        def warm(inner):
            new, info = self.warming(logdensity_fn).step(key, inner)
            return new, info.round

        def draw(inner):
            frozen = freeze(logdensity_fn, self.local, self._flow, inner.tuning, **options)
            new, info = frozen.step(key, frozen.init(inner.position))
            return inner._replace(position=new.position), info

        inner, info = jax.lax.cond(state.i < self.num_warmup, warm, draw, state.adaptive)
        return FlowMCMCState(
            state.i + 1,
            inner.position,
            -info.logdensity,
            info.num_diverging > 0,
            info.local_acceptance_rate,
            info.flow_acceptance_rate,
            inner,
            state.rng_key,
        )

    def postprocess_fn(self, args, kwargs) -> Callable:
        """The map from an unconstrained position to constrained and deterministic sites."""
        assert self._postprocess_fn is not None
        return self._postprocess_fn(*args, **kwargs)


def check_numpyro_model(model: Callable, args: tuple, kwargs: dict) -> dict[str, dict]:
    """All sites by name; raise ValueError for a density that is not a fixed function of continuous sites."""
    try:
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)
    except NotImplementedError as error:
        raise ValueError(
            "model has a prior that cannot be drawn from, an improper one perhaps: give every latent site a proper "
            "one, such as a wide dist.Normal."
        ) from error
    except Exception as error:
        raise ValueError(
            f"model cannot be run with these arguments, or its prior not be drawn from: {type(error).__name__}: {error}"
        ) from error
    latent = {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
    if not latent:
        raise ValueError("model has no latent site to sample: all are observed.")
    for name, site in latent.items():
        if site["fn"].support is not None and site["fn"].support.is_discrete:
            raise ValueError(f"site {name!r} is discrete: sum it out (numpyro's enumeration is not done here).")
    for name, site in trace.items():
        if site["type"] == "param":
            raise ValueError(
                f"site {name!r} is a numpyro.param, which nothing here would learn: it would stay at its initial "
                "value. Give it a prior with numpyro.sample, or write a number in its place."
            )
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            raise ValueError(
                f"plate {name!r} takes {site['args'][1]} of {site['args'][0]} rows at random: the density would be "
                "noise; give it all rows."
            )
    return trace
