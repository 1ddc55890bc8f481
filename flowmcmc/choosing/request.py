"""What a run was asked for, after a look at every argument: the first stage of `sample`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flowmcmc.adaptation.adaptive import adaptive
from flowmcmc.adaptation.batch import forward_kl
from flowmcmc.adaptation.frozen import production
from flowmcmc.adaptation.rounds import Moves, Tuning, check_steps
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.base import num_chains as count_chains
from flowmcmc.choosing.candidates import Candidate, candidate_of, default_candidates, learns_by_gradients
from flowmcmc.choosing.price import Trial, all_moves, production_moves
from flowmcmc.ground.arguments import check_counts, check_flow_type, is_density
from flowmcmc.ground.checks import check_density, check_flow, check_positions
from flowmcmc.ground.compiling import output_shape
from flowmcmc.ground.devices import check_mesh

__all__ = ["CheckedTarget", "Request", "check_request", "check_target"]

OR_DENSITY = ". Or pass a density to start from: flowmcmc.normal(position, scale=10.0), or any with sample and log_prob"


DEFAULT_STEPS = {"num_local_steps": 1, "num_flow_steps": 5}  # of a round of warm-up


class CheckedTarget(NamedTuple):
    """What is sampled, from where: `start`, a density, or `positions`; one `position` of zeros; number of chains."""

    rng_key: Array
    logdensity_fn: LogDensity
    start: Any
    positions: PyTree | None
    position: PyTree
    num_chains: int


class Request(NamedTuple):
    """A run whose arguments were checked: the target, the flows that it may take, samplers for one of them, options."""

    target: CheckedTarget
    candidates: list[Candidate]
    make_sampler: Callable[[Candidate], SamplingAlgorithm]
    make_frozen: Callable[[Candidate], SamplingAlgorithm]
    make_moves: Callable[[Trial], Moves]
    kernel: dict[str, Any]
    learning: dict[str, Any]
    counts: dict[str, int]

    @property
    def key_warmup(self) -> Array:
        return jax.random.fold_in(self.target.rng_key, 0)

    @property
    def key_draw(self) -> Array:
        return jax.random.fold_in(self.target.rng_key, 1)

    @property
    def key_start(self) -> Array:
        return jax.random.fold_in(self.target.rng_key, 2)


def check_target(
    rng_key: Array, logdensity_fn: LogDensity, positions: Any, counts: dict, mesh: Mesh | None
) -> CheckedTarget:
    """Look at the density and at where chains start; raise before anything takes long."""
    check_counts(counts)
    if is_density(positions):
        if (num_chains := counts["num_chains"]) > (num_particles := counts["num_particles"]):
            raise ValueError(f"num_chains = {num_chains} must not exceed num_particles = {num_particles}.")
        shapes = output_shape(positions.sample, rng_key)
        position = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
        target = CheckedTarget(rng_key, logdensity_fn, positions, None, position, counts["num_chains"])
    else:
        positions = check_positions(positions, OR_DENSITY)
        check_density(logdensity_fn, positions)
        position = jax.tree.map(lambda leaf: leaf[0], positions)
        target = CheckedTarget(rng_key, logdensity_fn, None, positions, position, count_chains(positions))
    if mesh is not None:
        check_mesh(target.num_chains, mesh)
    return target


def check_request(
    target: CheckedTarget, local: LocalKernel | None, flow: Flow | None, kernel: dict, learning: dict, counts: dict
) -> Request:
    """The flows that may be taken, and how samplers are made for one of them; raise if an option is wrong."""
    if flow is not None:
        check_flow_type(flow)
        check_flow(flow, target.position)
        candidates = [candidate_of(flow)]
    else:
        candidates = default_candidates(target.position)
    if flow is None and (learning["loss"] is not forward_kl or learning["optimizer"] is not None):
        candidates = [one for one in candidates if learns_by_gradients(one.flow, target.position)]
    # numbers of steps that are asked for hold in production too
    is_free = kernel["num_local_steps"] is None and kernel["num_flow_steps"] is None
    kernel = kernel | {name: number for name, number in DEFAULT_STEPS.items() if kernel[name] is None}
    num_flow_steps = kernel["num_flow_steps"]
    candidates = candidates if num_flow_steps else candidates[:1]
    local_of = lambda candidate: candidate.local if local is None else local

    def make_sampler(candidate):
        options = kernel | learning
        return adaptive(target.logdensity_fn, local_of(candidate), candidate.flow, refit_every=100, **options)

    log_prob = None if target.start is None else target.start.log_prob

    def make_frozen(candidate):
        placeholder = Tuning((), jnp.zeros(()), ())  # until it is known
        steps = check_steps(local_of(candidate), candidate.flow, **kernel)
        return production(target.logdensity_fn, steps, placeholder, all_moves(num_flow_steps), log_prob)

    def make_moves(trial):
        return production_moves(trial, num_flow_steps) if is_free else all_moves(num_flow_steps)

    make_sampler(candidates[0])  # raises if an option is wrong
    return Request(target, candidates, make_sampler, make_frozen, make_moves, kernel, learning, counts)
