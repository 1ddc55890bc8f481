"""Moments of the logistic regression by a long run of NumPyro's NUTS in float64, stored in results/truth_logistic.json.

python benchmarks/truth.py        about a quarter of an hour on one core
"""

import json

import jax
import numpy as np
from _posteriors import LONG_RUN, logistic_density


def main() -> None:
    """8 chains of 50,000 draws."""
    import arviz as az
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    density = logistic_density()
    kernel = NUTS(potential_fn=lambda w: -density(w))
    options = dict(num_warmup=2000, num_samples=50_000, num_chains=8, chain_method="vectorized", progress_bar=False)
    sampler = MCMC(kernel, **options)
    sampler.run(jax.random.key(2026), init_params=0.1 * jax.random.normal(jax.random.key(1), (8, 31)))
    draws = np.asarray(sampler.get_samples(group_by_chain=True))
    tree = az.from_dict({"posterior": {"w": draws}})
    ess = float(az.ess(tree)["w"].min())
    found = {
        "mean": draws.mean((0, 1)).tolist(),
        "variance": draws.var((0, 1)).tolist(),
        "lowest_ess": ess,
        "highest_rhat": float(az.rhat(tree)["w"].max()),
        "command": "python benchmarks/truth.py",
    }
    LONG_RUN.write_text(json.dumps(found) + "\n")
    print(f"ESS {ess:.0f}, r-hat {found['highest_rhat']:.4f}")


if __name__ == "__main__":
    main()
