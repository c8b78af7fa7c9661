"""A training on two ranks is the training of one: the same tokens, actions and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY
from torch import Tensor, multiprocessing
from torch import distributed as dist

from agents.adanat.config import TrainingConfig
from agents.adanat.trainer import AdaNATTrainer
from agents.distributed.ranks import Ranks
from natgym.runs import read_metrics

BITS = TrainingConfig().adanat.policy  # which a policy of tokens leaves as it is
CONFIGS: dict[str, dict[str, Any]] = {
    "adversarial": {"max_gradient_norm": 1e-3},
    "compares": {"reward": "distance", "minibatch": None, "normalize_advantages": False},
    "groups": {"reward": "mmd", "group": 4, "baseline": "rloo", "minibatch": 3, "observation": "tokens"},
    "bits": {
        "actions": "reveal",
        "observation": "statistics",
        "reward": "classifier=1,mmd=1",
        "policy": BITS,
    },
    "cotraining": {"cotraining.updates": 1},
}


class Seen:
    """What a training did, all rows of it.

    Attributes:
        tokens: of each update's images.
        actions: of each update.
        gradient: of the first step, flat.
    """

    def __init__(self, trainer: AdaNATTrainer) -> None:
        self.tokens: list[Tensor] = []
        self.actions: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.trainer = trainer
        trainer.ppo.policy.optimizer.register_step_pre_hook(self.step)

    def step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        groups = (group["params"] for group in optimizer.param_groups)
        gradients = [one.grad.flatten() for group in groups for one in group if one.grad is not None]
        self.gradients.append(torch.cat(gradients))

    def update(self) -> dict[str, float]:
        metrics = self.trainer.update()
        ranks, state = Ranks.here(), self.trainer.env.finished
        assert state is not None
        self.tokens.append(ranks.gather(state.ids_BL))
        actions: Any = self.trainer.ppo.rollout_buffer.actions  # of row 0 all steps, then of row 1
        self.actions.append(ranks.gather(torch.from_numpy(actions)))
        return metrics


def trained(name: str, updates: int = 2) -> dict[str, Any]:
    """Return what the first updates of a training see and come to."""
    torch.set_num_threads(1)
    seen = Seen(AdaNATTrainer.of(TINY.but(CONFIGS[name])))
    metrics = [seen.update() for _ in range(updates)]
    weights = seen.trainer.ppo.policy.state_dict()
    told = {"tokens": seen.tokens, "actions": seen.actions, "gradient": seen.gradients[0]}
    return {**told, "metrics": metrics, "weights": weights}


def rank(number: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=number, world_size=2)
    for name in CONFIGS:
        torch.save(trained(name), folder / f"{name}-{number}.pt")
    train_and_go_on(folder / "run")
    dist.barrier()
    dist.destroy_process_group()


def train_and_go_on(folder: Path) -> None:
    """Train to the end, stopped once and gone on with by another trainer."""
    for updates in (1, 9):
        AdaNATTrainer.of(TINY, callbacks=[lambda trainer, _: trainer.done != updates]).fit(folder)  # noqa: B023


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    multiprocessing.spawn(rank, (folder,), nprocs=2)
    return folder


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("name", CONFIGS)
def test_two_ranks_learn_as_one(together: Path, name: str) -> None:
    alone = trained(name)
    both = [torch.load(together / f"{name}-{number}.pt", weights_only=True) for number in range(2)]
    for found in both:
        assert torch.equal(found["tokens"][0], alone["tokens"][0])
        torch.testing.assert_close(found["actions"][0], alone["actions"][0])
        apart = (found["gradient"] - alone["gradient"]).norm()
        assert apart < 1e-5 * alone["gradient"].norm()
        for row, expected in zip(found["metrics"], alone["metrics"], strict=True):
            # Means of a rank's minibatches, and of a reward that compares a rank's images.
            own = {"value_loss", "approx_kl", "clip_fraction"} if name == "groups" else {"reward_gap"}
            assert row.keys() == expected.keys()
            for key in row.keys() - own:
                assert row[key] == pytest.approx(expected[key], rel=0.05, abs=0.02, nan_ok=True), key
    for key, value in both[0]["weights"].items():
        assert torch.equal(both[1]["weights"][key], value), "ranks never part"
        torch.testing.assert_close(value, alone["weights"][key], atol=1e-3, rtol=1e-2)


def test_one_rank_writes_what_one_training_writes(together: Path, tmp_path: Path) -> None:
    train_and_go_on(tmp_path)
    ours, theirs = tmp_path, together / "run"
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    rows = [read_metrics(folder / "metrics.csv") for folder in (ours, theirs)]
    for one, other in zip(*rows, strict=True):
        numbers = [{name: float(value) for name, value in row.items()} for row in (one, other)]
        assert numbers[1] == pytest.approx(numbers[0], rel=0.05, abs=0.02, nan_ok=True)
