"""The search for a law of the mask ratio: what is tried, and a training that goes on where it stopped."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.autonat.masks import LawSearchConfig, sample_laws, train_law
from agents.autonat.scorer import Evaluation, Measurement
from generators.checkpoints import from_pretrained
from generators.conditions import Labels
from generators.masking import MaskLaw
from generators.nat import NAT, nat_digits
from generators.noise import seeded
from generators.schedules import maskgit
from generators.training import Trainer, small_recipe

CONFIG = LawSearchConfig(laws=4, rung=2, images=50)


def test_the_known_laws_come_first_and_the_others_follow_from_the_seed() -> None:
    laws = sample_laws(30, seed=0)
    assert laws[:2] == [MaskLaw("cosine"), MaskLaw("beta", 12.0, 3.0)]
    assert laws[:9] == sample_laws(9, seed=0) and laws[2:] != sample_laws(30, seed=1)[2:]
    assert {law.name for law in laws[2:]} == {"beta", "gaussian"} and len(set(laws)) == 30


def new_trainer(updates: int = 5) -> Trainer:
    """A tiny generator on random tokens."""
    tokens_NL = torch.randint(8, (40, 16), generator=torch.Generator().manual_seed(0))
    with seeded(1):
        generator = NAT(nat_digits(width=16, heads=2, codebook_size=8))
    config = small_recipe(updates=updates, batch_size=8, mask_law=MaskLaw("beta", 2.0, 2.0))
    return Trainer(generator, tokens_NL, Labels(torch.arange(40) % 10, 10), config)


class ScheduleScorer:
    """Measures how far the averaged weights have come, and notes what it was asked."""

    def __init__(self, trainer: Trainer) -> None:
        self.generator, self.asked = trainer.ema, list[Evaluation]()

    def __call__(self, evaluation: Evaluation) -> Measurement:
        self.asked.append(evaluation)
        return Measurement(
            sum(float(weight.detach().abs().sum()) for weight in self.generator.parameters()), 0.1
        )


def rungs(folder: Path, stop: int | None = None) -> list[tuple[int, Measurement]]:
    trainer = new_trainer()
    scorer: Any = ScheduleScorer(trainer)
    found = train_law(trainer, scorer, maskgit(2), CONFIG, 3, folder)
    reached = list(itertools.islice(found, stop))
    assert len({(one.seed, one.images, one.balanced) for one in scorer.asked}) == 1, "the same noise at each"
    return reached


def test_a_law_is_measured_at_its_rungs_and_at_the_end(tmp_path: Path) -> None:
    assert [updates for updates, _ in rungs(tmp_path)] == [2, 4, 5]
    generator: Any = from_pretrained(tmp_path / "generator")
    assert generator.config.width == 16


def test_a_stopped_training_goes_on_from_its_rung(tmp_path: Path) -> None:
    """Its last measurement comes again, then those that the whole training has; to the bit."""
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = rungs(tmp_path / "whole")
    assert rungs(tmp_path / "stopped", stop=1) == whole[:1]
    assert rungs(tmp_path / "stopped") == whole
    weights = [
        (tmp_path / name / "generator" / "model.safetensors").read_bytes() for name in ("whole", "stopped")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("values", [{"laws": 1}, {"rung": 0}, {"images": 1}])
def test_an_impossible_search_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        dataclasses.replace(CONFIG, **values)
