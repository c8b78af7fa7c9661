"""A training as a Ray Tune trial: its search space is the config, its folder the training's own."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from agents.adanat.trainable import AdaNATTrainable
from agents.adanat.trainer import train
from agents.distributed.cluster import cluster
from generators.checkpoints import load_state
from natgym.runs import read_metrics

BASE = TINY.but({"warmup": 0, "evaluate_every": 1, "adversarial.channels": 2})


def trial(folder: Path, config: dict[str, Any]) -> AdaNATTrainable:
    """A trial without a Ray cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    found = AdaNATTrainable.__new__(AdaNATTrainable)
    found._logdir = str(folder)
    found.setup(config, base=BASE)
    return found


def test_steps_are_updates_of_the_training_that_the_settings_mean(tmp_path: Path) -> None:
    changed = {"learning_rate": 3e-3, "rewards": {"adversarial": {"channels": 4}}, "policy.width": 8}
    found = trial(tmp_path / "trial", changed)
    results = [found.step() for _ in range(3)]
    assert [(row["update"], row["done"]) for row in results] == [(1, False), (2, False), (3, True)]
    train(BASE.but(changed), tmp_path / "plain", lambda metrics: None)
    for file in ("metrics.csv", "policy/model.safetensors", "training.json"):
        assert (tmp_path / "trial" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes(), file
    logged = read_metrics(tmp_path / "trial" / "metrics.csv")
    assert [float(row["distance"]) for row in logged] == [row["distance"] for row in results]


def test_a_trial_goes_on_from_its_folder_and_from_tunes_checkpoint(tmp_path: Path) -> None:
    straight = trial(tmp_path / "straight", {})
    expected = [straight.step() for _ in range(3)]
    killed = trial(tmp_path / "killed", {})
    assert killed.step() == expected[0]
    (tmp_path / "saved").mkdir()
    killed.save_checkpoint(str(tmp_path / "saved"))
    assert killed.step() == expected[1]
    assert trial(tmp_path / "killed", {}).step() == expected[2], "what its own folder holds"
    moved = trial(tmp_path / "moved", {})
    moved.load_checkpoint(str(tmp_path / "saved"))
    assert [moved.step(), moved.step()] == expected[1:]
    ended = trial(tmp_path / "straight", {}).step()
    assert ended["done"] and ended["update"] == 3 and ended["distance"] == expected[2]["distance"]


def test_a_scheduler_may_change_the_settings_of_a_trial(tmp_path: Path) -> None:
    """As population-based training does: another's checkpoint under a rate of its own."""
    good = trial(tmp_path / "good", {})
    good.step()
    (tmp_path / "saved").mkdir()
    good.save_checkpoint(str(tmp_path / "saved"))
    poor = trial(tmp_path / "poor", {})
    poor.step(), poor.step()
    changed = trial(tmp_path / "poor", {"learning_rate": 5e-4})
    changed.load_checkpoint(str(tmp_path / "saved"))
    assert changed.step()["learning_rate"] == 5e-4
    state = load_state(tmp_path / "poor" / "checkpoint.pt")
    rows = [read_metrics(tmp_path / name / "metrics.csv") for name in ("good", "poor")]
    assert state["done"] == 2 and rows[1][:1] == rows[0] and len(rows[1]) == 2, (
        "the log of what it went on from"
    )
    assert not torch.equal(
        state["policy"]["action_net.weight"],
        load_state(tmp_path / "saved" / "checkpoint.pt")["policy"]["action_net.weight"],
    )


@pytest.mark.slow
@pytest.mark.ray
def test_population_based_training_of_tune_moves_trials(tmp_path: Path) -> None:
    """Tune's own scheduler pauses, copies and changes trials; the grid says what each had."""
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=2,  # of three updates: each move costs processes that start anew
        synch=True,
        quantile_fraction=0.5,
        hyperparam_mutations={"learning_rate": [1e-4, 1e-3]},
    )
    with cluster(None, CPU=min(2, os.cpu_count() or 1)):
        results = tune.Tuner(
            tune.with_resources(tune.with_parameters(AdaNATTrainable, base=BASE), {"cpu": 1}),
            param_space={"learning_rate": tune.choice([1e-4, 1e-3]), "seed": tune.grid_search([0, 1])},
            tune_config=tune.TuneConfig(metric="distance", mode="min", scheduler=scheduler),
            run_config=tune.RunConfig(
                name="pbt",
                storage_path=str(tmp_path),
                verbose=0,
                sync_config=tune.SyncConfig(sync_artifacts=True),
            ),
        ).fit()
    assert not results.errors and len(results) == 2 and scheduler._num_perturbations == 1
    for result in results:
        assert result.config is not None and result.metrics is not None
        assert result.config["seed"] in (0, 1) and result.metrics["update"] == 3
        assert (Path(result.path) / "policy" / "model.safetensors").is_file()
    best = results.get_best_result().metrics
    assert best is not None and best["distance"] == min(r.metrics["distance"] for r in results if r.metrics)
