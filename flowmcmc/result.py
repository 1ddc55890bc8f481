"""What `sample` returns: the draws, what made them, and how to go on."""

import time
from dataclasses import dataclass, replace
from functools import cached_property

from flowmcmc.adaptation.rounds import Tuning, total_evaluations
from flowmcmc.base import Array, Flow, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.leaves import concatenate_trees
from flowmcmc.running.run import CHUNK_SIZE, RunState, Trace, run

__all__ = ["SampleResult"]


@dataclass(frozen=True, eq=False)
class SampleResult:
    """What `sample` returns.

    Attributes
    ----------
    trace, warmup
        NumPy arrays, (draw, chain, ...); `trace` is None if warm-up was interrupted.
    flow, params
        The proposal density and its trained parameters.
    state
        Where the production run stands.
    algorithm, rng_key
        The frozen sampler, and the key it runs with.
    tuning
        Flow parameters, step size and scale that it uses.
    logdensity_fn
        The target.
    settings
        What was asked for and how long it took, in seconds; recorded in the DataTree.
    """

    trace: Trace | None
    warmup: Trace
    flow: Flow
    state: RunState
    algorithm: SamplingAlgorithm
    rng_key: Array
    tuning: Tuning
    logdensity_fn: LogDensity
    settings: dict

    @property
    def params(self) -> PyTree:
        """Trained flow parameters."""
        return self.tuning.params

    @property
    def evaluations(self) -> dict[str, int]:
        """Evaluations of the density (with its gradient or without: that counts one) in the ``search`` from a density,
        in ``warmup`` and while ``drawing``. What a training loss evaluates is not among them."""
        drawn = 0 if self.trace is None else total_evaluations(self.trace.info)
        warmup = total_evaluations(self.warmup.info.round)
        return {"search": self.settings["search_evaluations"], "warmup": warmup, "drawing": drawn}

    @cached_property
    def datatree(self):
        """The run as an arviz DataTree, see `to_datatree`."""
        from flowmcmc.reading.datatree import to_datatree

        return to_datatree(self.trace, warmup=self.warmup, attrs=self.settings)

    def more(self, num_samples: int, *, progress_bar: bool = True) -> "SampleResult":
        """Go on where the draws stopped, also after an interruption: the result with `num_samples` more draws.

        Bit for bit what one longer run would have given.

        Raises
        ------
        ValueError
            If warm-up was interrupted: there is no frozen sampler to go on with.
        """
        if self.trace is None:
            raise ValueError("warm-up was interrupted, so there is nothing to go on from: call sample again.")
        check_counts({"num_samples": num_samples})
        wanted = self.state.round + num_samples
        began = time.perf_counter()
        how = {"chunk_size": CHUNK_SIZE, "progress_bar": progress_bar and "drawing"}
        state, new = run(self.rng_key, self.algorithm, self.state, num_samples, **how)
        seconds = self.settings["sampling_seconds"] + time.perf_counter() - began
        known = {"num_samples": wanted, "partial": int(state.round < wanted), "sampling_seconds": seconds}
        known["stopped"] = "num_samples" if state.round == wanted else "interrupted"
        trace = concatenate_trees([self.trace, new])
        return replace(self, state=state, trace=trace, settings=self.settings | known)

    def plot_report(self, path) -> None:
        """Write verdict, table, pictures, settings and versions to one HTML page, see `flowmcmc.plot_report`."""
        from flowmcmc.plots.report import plot_report

        plot_report(self, path)
