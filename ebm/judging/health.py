"""How training went, in words: "No problem found" is said only if the persistent chains were there to be looked at."""

from dataclasses import dataclass

import jax
import numpy as np

from ebm.fitting import Fit
from flowmcmc.ground.arguments import check_has

__all__ = ["Health", "health"]

MAX_TRAINING_RHAT = 1.05  # over a few tens of looks; the final sampler is held to 1.01
MIN_ACCEPTANCE = 0.05
MIN_WEIGHT_ESS = 0.1
LAST_SHARE = 0.1  # share of the updates that means are taken over


@dataclass(frozen=True)
class Health:
    """What `health` found; ``print`` it.

    Attributes
    ----------
    loss
        Mean over the last tenth of the updates; for maximum likelihood the energy gap E(data) - E(negatives), nats.
    local_acceptance_rate, flow_acceptance_rate, ess
        Means over the same updates; NaN where a method has none.
    rhat
        Of the persistent chains over the second half of the looks, worst coordinate; NaN without such chains.
    num_skipped, num_invalid
        Updates skipped, and negatives thrown away, because something was not finite.
    problems
        Sentences, empty if none was found.
    """

    loss: float
    local_acceptance_rate: float
    flow_acceptance_rate: float
    ess: float
    rhat: float
    num_skipped: int
    num_invalid: int
    problems: list[str]

    def __str__(self) -> str:
        shown = {
            "loss (energy gap)": self.loss,
            "local acceptance": self.local_acceptance_rate,
            "flow acceptance": self.flow_acceptance_rate,
            "weight ESS": self.ess,
            "r-hat of persistent chains": self.rhat,
        }
        lines = [f"{name}: {value:.3f}" for name, value in shown.items() if not np.isnan(value)]
        lines.append(f"skipped updates: {self.num_skipped}, invalid negatives: {self.num_invalid}")
        verdict = "No problem found: the persistent chains mix." if not self.problems else "NOT to be trusted yet:"
        return "\n".join([*lines, "", verdict, *(f"  - {problem}" for problem in self.problems)])


def health(fit: Fit) -> Health:
    """Whether training went well, in numbers and in words; r-hat is that of Vehtari et al. (arXiv 1903.08008).

    Parameters
    ----------
    fit
        Of any method. Without persistent chains mode weights stay unchecked, and that is said.

    Returns
    -------
    Health
        Means over the last tenth of the updates, r-hat of the persistent chains, counts of what was not finite, and
        ``problems``, a list of sentences.
    """
    check_has("fit", fit, ("info", "chains"), "what ebm.fit returned")
    info = fit.info
    num = len(info.loss)
    last = slice(num - max(1, int(LAST_SHARE * num)), num)
    loss, local, flow, ess = (
        float(np.mean(values[last]))
        for values in (
            info.loss,
            info.method.local_acceptance_rate,
            info.method.flow_acceptance_rate,
            info.method.ess,
        )
    )
    rhat = chains_rhat(fit)
    num_skipped, num_invalid = int(info.is_skipped.sum()), int(info.method.num_invalid.sum())
    problems = []
    if fit.partial:
        problems.append("training was interrupted")
    if num_skipped:
        problems.append(f"{num_skipped} of {num} updates were not finite and were skipped: lower the learning rate")
    if num_invalid:
        problems.append(f"{num_invalid} negatives or proposals were NaN, infinite or of zero density")
    if local < MIN_ACCEPTANCE:
        problems.append(f"local steps are accepted at {local:.3f}: the step size is too large")
    if flow < MIN_ACCEPTANCE:
        problems.append(f"flow proposals are accepted at {flow:.3f}: chains hardly jump between modes")
    if ess < MIN_WEIGHT_ESS:
        problems.append(f"the negatives' weights have an effective size of {ess:.1%}")
    if np.isnan(rhat):
        problems.append("no persistent chains were watched: relative weights of modes are unchecked")
    elif rhat > MAX_TRAINING_RHAT:
        problems.append(
            f"r-hat of the persistent chains is {rhat:.2f}: they do not mix, so the relative weights of modes in the "
            "gradient, and in the model, are arbitrary; add flow proposals"
        )
    return Health(loss, local, flow, ess, rhat, num_skipped, num_invalid, problems)


def chains_rhat(fit: Fit) -> float:
    """r-hat of the worst coordinate over the second half of the looks; NaN if these are fewer than four."""
    from arviz_stats.base.array import array_stats

    if fit.chains is None:
        return float("nan")
    leaves = [np.swapaxes(leaf[len(leaf) // 2 :], 0, 1) for leaf in jax.tree.leaves(fit.chains)]
    if leaves[0].shape[1] < 4 or leaves[0].shape[0] < 2:
        return float("nan")
    return float(max(np.max(array_stats.rhat(leaf, chain_axis=0, draw_axis=1)) for leaf in leaves))
