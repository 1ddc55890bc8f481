"""What `sample` returns: draws by name, in a file, and more of them."""

import jax
import numpy as np
from support.targets import two_modes

import flowmcmc


def test_the_datatree_has_the_positions_own_names(result):
    tree = result.datatree
    assert dict(tree.posterior.sizes) == {"chain": 40, "draw": 300, "b.c_dim_0": 1}
    assert tree.posterior["a"].dims == ("chain", "draw")
    assert {"lp", "acceptance_rate", "diverging", "flow_acceptance_rate"} <= set(tree.sample_stats)
    assert tree.warmup_posterior.sizes["draw"] == 60
    assert {"loss", "heldout_loss", "step_size", "flow_acceptance_rate"} <= set(tree.warmup_history)
    assert tree.attrs["num_chains"] == 40 and tree.attrs["partial"] == 0 and "jax_version" in tree.attrs


def test_lp_is_the_density_of_the_draw(result):
    draws = result.datatree.posterior
    both = np.concatenate([draws["a"].values[..., None], draws["b.c"].values], axis=-1)
    expected = jax.vmap(jax.vmap(two_modes))(both)
    np.testing.assert_allclose(result.datatree.sample_stats["lp"], expected, rtol=1e-4, atol=1e-4)


def test_the_datatree_survives_a_file(result, tmp_path):
    import arviz as az

    result.datatree.to_netcdf(tmp_path / "draws.nc")
    again = az.from_netcdf(tmp_path / "draws.nc")
    np.testing.assert_array_equal(again.posterior["a"], result.datatree.posterior["a"])
    assert "warmup_history" in again.children
    assert flowmcmc.summary(again).importance is None  # its attribute "flow" is no flow


def test_drawing_goes_on_where_it_stopped(result):
    longer = result.more(10, progress_bar=False)
    once = flowmcmc.run(result.rng_key, result.algorithm, result.state, 10, progress_bar=False)[1]
    assert longer.state.round == 310 and longer.datatree.posterior.sizes["draw"] == 310
    assert longer.datatree.attrs["num_samples"] == 310 and longer.datatree.attrs["partial"] == 0
    twice = result.more(4, progress_bar=False).more(6, progress_bar=False)
    jax.tree.map(np.testing.assert_array_equal, longer.trace, twice.trace)
    np.testing.assert_array_equal(longer.trace.position["a"][300:], once.position["a"])
