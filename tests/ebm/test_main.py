"""The command line of the experiments, and that every experiment and method can be built and takes a step."""

import json

import jax
import numpy as np
import pytest

from ebm.__main__ import main
from ebm.experiments import report, targets
from ebm.experiments.methods import METHODS
from ebm.experiments.settings import EXPERIMENTS
from ebm.train import default_optimizer, trainer


@pytest.mark.slow
def test_one_run_writes_a_record_and_the_report_reads_it(tmp_path, capsys):
    assert main(["A", "--method", "nce-normal", "--num-steps", "80", "--output", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "A-nce-normal-0.json").read_text())
    assert record["num_steps"] == 80
    assert record["command"] == "python -m ebm A --method nce-normal --seed 0 --num-steps 80"
    np.testing.assert_allclose(sum(record["weights"]), 1, atol=1e-3)
    assert main(["report", "--output", str(tmp_path)]) == 0
    assert "nce-normal" in (tmp_path / "table.md").read_text()
    assert "weight error (TV)" in capsys.readouterr().out


def test_unknown_names_are_refused_with_those_that_exist(capsys):
    with pytest.raises(SystemExit):
        main(["Z"])
    assert "rings" in capsys.readouterr().err


def test_the_plan_names_only_what_exists():
    for name, method, seed in report.planned_runs(2):
        assert name in EXPERIMENTS
        assert method in METHODS
        assert seed < 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_every_method_is_built_and_its_loss_is_finite(method):
    experiment = EXPERIMENTS["A"]
    data = experiment.target.sample(jax.random.key(0), 500)
    setting = METHODS[method](jax.random.key(1), experiment, data)
    algorithm = trainer(setting.model, setting.method, default_optimizer(10), batch_size=32)
    # traced, not run: compiling each would take longer than it tells
    state = jax.eval_shape(algorithm.init, data, jax.random.key(2))
    new, info = jax.eval_shape(algorithm.step, jax.random.key(3), state)
    assert jax.tree.map(lambda leaf: leaf.dtype, new) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert info.loss.shape == ()


@pytest.mark.parametrize(
    "target", [targets.two_modes(), targets.four_modes(), targets.eight_gaussians(), targets.rings()]
)
def test_targets_are_normalised_and_their_draws_have_the_stated_weights(target):
    side = np.linspace(-6, 6, 601)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(np.asarray(jax.vmap(target.logdensity)(points)))
    cell = (side[1] - side[0]) ** 2
    np.testing.assert_allclose(density.sum() * cell, 1, atol=2e-3)
    labels = np.asarray(target.labels(points))
    on_grid = np.bincount(labels, density * cell, minlength=len(target.weights))
    np.testing.assert_allclose(on_grid, target.weights, atol=5e-3)
    draws = target.sample(jax.random.key(0), 20_000)
    shares = np.bincount(np.asarray(target.labels(draws)), minlength=len(target.weights)) / 20_000
    np.testing.assert_allclose(shares, target.weights, atol=4.5 * np.sqrt(0.25 / 20_000))


def test_growing_dimension_has_four_modes_at_the_stated_places():
    target = targets.growing_dimension(16, separation=2.0, weights=(0.1, 0.2, 0.3, 0.4))
    draws = np.asarray(target.sample(jax.random.key(0), 20_000))
    labels = np.asarray(target.labels(draws))
    np.testing.assert_allclose(draws[labels == 0].mean(axis=0), 2.0, atol=0.15)
    np.testing.assert_allclose(draws[labels == 3].mean(axis=0), -2.0, atol=0.08)
    np.testing.assert_allclose(np.bincount(labels) / 20_000, target.weights, atol=0.016)
