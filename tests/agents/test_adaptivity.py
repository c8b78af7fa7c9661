"""Controls of adaptivity, and a generator whose answer is known."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.adanat.config import TrainingConfig
from agents.adanat.critic import ActorWithCritic
from agents.adanat.trainer import AdaNATTrainer
from agents.named import shipped_strategy
from agents.studies.adaptivity import OWN, Shuffled, can_shuffle, mean_schedule, others
from agents.studies.distilled import by_class, static
from generators.checkpoints import from_pretrained, save_pretrained
from generators.conditions import Labels
from generators.decoding import start
from generators.planted import plant
from generators.rules import DecodeRules
from generators.schedules import PARAMETERS, DecodeParams, Schedule, random_order, reference
from natgym.env.episodes import record
from natgym.observations import observe
from natgym.policies import FixedPolicy
from natgym.rollouts import Decision, balanced, rollout
from natgym.task import Task
from rounding import ROUNDINGS, UNIT

FACTORS = (0.6, 1.6)  # of the logits of even and odd classes


@pytest.fixture(scope="module")
def nets() -> Any:
    return Task.load("digits").generator, Task.load("digits").tokenizer


@pytest.mark.parametrize("seed", range(5))
def test_everybody_gets_another_of_the_own_group(seed: int) -> None:
    groups = torch.tensor([0, 1, 0, 2, 1, 2, 0, 2, 2])
    source = others(groups, seed)
    assert sorted(source.tolist()) == list(range(9))
    assert (source != torch.arange(9)).all() and (groups[source] == groups).all()
    assert torch.equal(source, others(groups, seed))
    assert len({tuple(others(groups, other).tolist()) for other in range(20)}) > 3


def test_who_is_alone_in_a_class_can_not_be_shuffled() -> None:
    with pytest.raises(ValueError, match="single row in a batch of 3.*fewer conditions"):
        others(torch.tensor([0, 0, 1]), 0)


@pytest.mark.parametrize("within", [True, False])
def test_a_shuffled_policy_is_itself_on_the_rows_of_others(within: bool, nets: Any) -> None:
    trainer = AdaNATTrainer.of(TrainingConfig.of(steps=2, warmup=0, trajectories=128))
    torch.manual_seed(0)
    for parameter in trainer.ppo.policy.action_net.parameters():  # type: ignore[union-attr]
        torch.nn.init.normal_(parameter)
    actor, condition = trainer.actor(), Labels(torch.arange(20) % 10, 10)
    state = start(nets[0], condition, steps=2)
    seen = observe(state, nets[0].mask_id) | {"condition": condition.values, "kind": condition.kinds_B}
    seen["features"] = torch.randn(20, 16, 64)
    found, own = Shuffled(actor, within, seed=3)(seen, 0), actor(seen, 0)
    for row in range(20):
        # A product's bits may depend on where in the batch a row stands.
        same = [
            other
            for other in range(20)
            if all(
                abs(f[row] - o[other]) <= ROUNDINGS * UNIT * o.max() for f, o in zip(found, own, strict=True)
            )
        ]
        assert len(same) == 1 and same != [row] and (not within or (same[0] - row) % 10 == 0)


def test_nothing_of_the_row_itself_is_left_to_decide_by() -> None:
    """Also what an observation holds one day; condition, step and the action played before are no leaks."""

    class Reader:
        steps = 2

        def decide(self, observation: Any, step: int) -> Any:
            return observation

    rows = torch.arange(6)
    keys = (*OWN, "features", "masked", "tokens", "of-tomorrow")
    seen = Shuffled(Reader(), False, seed=1).decide(dict.fromkeys(keys, rows), 0)
    for key in keys:
        assert torch.equal(seen[key], rows) if key in OWN else (seen[key] != rows).all(), key
    assert set(OWN) == {"condition", "kind", "step", "previous_action", "price", "row_seeds"}


def test_a_shuffled_policy_is_told_what_the_policy_is(nets: Any) -> None:
    """One that sees prices sees each image's own, as it does unshuffled; and one that draws its seeds."""

    class Priced:
        steps, price, draws = 2, (0.01, 0.3), True

        def __init__(self) -> None:
            self.told: list[Tensor] = []

        def decide(self, observation: Any, step: int) -> Decision:
            self.told.append(torch.stack([observation["price"][:, 0], observation["row_seeds"]]))
            return Decision(reference(2).params(step, len(observation["masked"])))

    plain, inner = Priced(), Priced()
    for policy in (plain, Shuffled(inner, False)):
        rollout(policy, *nets, balanced(nets[0].conditions(), 20), seed=3)  # type: ignore[arg-type]
    assert len(plain.told[0][0].unique()) == 20 and len(plain.told) == 2
    for ours, theirs in zip(inner.told, plain.told, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("images", [255, 260, 265, 270, 501, 502, 520])
def test_who_can_be_shuffled_is_told_before(images: int) -> None:
    condition = balanced(Labels.every(10), images)
    for within in (True, False):
        possible = True
        for batch in (condition[first : first + 250] for first in range(0, images, 250)):
            try:
                others(batch.kinds_B if within else torch.zeros(len(batch)), 0)
            except ValueError:
                possible = False
        assert can_shuffle(condition, within) == possible, within


def test_who_plays_a_policy_in_its_place_plays_by_its_rules() -> None:
    config = TrainingConfig.of(steps=2, warmup=0, trajectories=128, rules="halton,min_reveal=0")
    trainer = AdaNATTrainer.of(config)
    actor, state = trainer.actor(), trainer.ppo.policy.state_dict()
    for stand_in in (Shuffled(actor, False), ActorWithCritic(actor, state)):
        assert stand_in.rules == actor.rules != DecodeRules()


def test_the_mean_schedule_of_a_schedule_is_itself_and_of_a_policy_its_means(nets: Any) -> None:
    condition = balanced(nets[0].conditions(), 40)
    drawn = rollout(FixedPolicy(reference(3)), *nets, condition, seed=0)
    torch.testing.assert_close(mean_schedule(drawn, 3).table_T4, reference(3).table_T4)
    frame = drawn.frame.copy()
    frame.loc[frame["sample"] < 10, "guidance_scale"] = 3.0
    vars(drawn)["frame"] = frame
    table = mean_schedule(drawn, 3).table_T4
    for step in range(3):
        expected = (10 * 3.0 + 30 * reference(3).table_T4[step, 3].item()) / 40
        assert table[step, PARAMETERS.index("guidance_scale")].item() == pytest.approx(expected)


class Hasty:
    """Half of the classes are drawn in one step, the others in two of four; what comes after is of no use."""

    steps = 4

    def __call__(self, observation: Any, step: int) -> DecodeParams:
        masked_B = observation["masked"].any(1).cpu().double()
        even_B = (observation["condition"].cpu() % 2 == 0).double()
        ratio_B = torch.full_like(masked_B, 0.5) * (1 - even_B) * (step == 0)
        guidance_B = torch.where(masked_B > 0, 1.0 + step + observation["condition"].cpu() / 10, 99.0)
        return DecodeParams.from_table(torch.stack([ratio_B, masked_B, 2 - masked_B, guidance_B], -1))


def test_what_decided_nothing_is_no_part_of_means(nets: Any) -> None:
    """By hand: rows that were finished are left out, and steps without any go on as before."""
    drawn = rollout(Hasty(), *nets, balanced(nets[0].conditions(), 30), seed=0)
    assert drawn.frame["step"].max() < 3, "all are finished before the last step"
    guidance = [1 + 4.5 / 10, 2 + 5 / 10] + [2 + 5 / 10] * 2  # of all classes, then of the odd ones
    expected = [[0.25, 1, 1, guidance[0]]] + [[0, 1, 1, scale] for scale in guidance[1:]]
    torch.testing.assert_close(mean_schedule(drawn, 4).table_T4, torch.tensor(expected, dtype=torch.float64))
    episodes = record(Hasty(), "digits", num_images=30, seed=0)
    torch.testing.assert_close(static(episodes).table_T4, mean_schedule(drawn, 4).table_T4)
    table = by_class(episodes, Task.load("digits").every.names)
    for label, steps in ((4, [1.4] * 4), (7, [1.7] + [2.7] * 3)):
        found = table.schedules[table.assignment[label]].table_T4[:, 3]
        torch.testing.assert_close(found, torch.tensor(steps, dtype=torch.float64))


def test_the_planted_difference_is_undone_by_its_own_temperatures(nets: Any, tmp_path: Path) -> None:
    """At one step, where no confidence matters, the very tokens of the plain generator come back."""
    generator, tokenizer = nets
    save_pretrained(plant(generator, *FACTORS), tmp_path, task="digits")
    planted: Any = from_pretrained(tmp_path)
    condition = balanced(generator.conditions(), 30)
    even = condition.values % 2 == 0
    plain, scaled = (
        rollout(FixedPolicy(random_order(1)), net, tokenizer, condition, seed=0).tokens_NL
        for net in (generator, planted)
    )
    assert not torch.equal(plain, scaled)
    for chosen, factor in ((even, FACTORS[0]), (~even, FACTORS[1])):
        table = random_order(1).table_T4.clone()
        table[:, 2] *= factor
        undone = rollout(FixedPolicy(Schedule(table)), planted, tokenizer, condition, seed=0).tokens_NL
        assert torch.equal(undone[chosen], plain[chosen]) and not torch.equal(undone[~chosen], plain[~chosen])
    with pytest.raises(ValueError, match="positive"):
        plant(generator, 1.0, 0.0)


@pytest.mark.slow
def test_a_policy_that_sees_finds_the_planted_difference_and_a_blind_one_can_not(tmp_path: Path) -> None:
    """The known answer: even classes want a sampling temperature of 0.6 / 1.6 of the odd ones'."""
    generator = Task.load("digits").generator
    save_pretrained(plant(generator, *FACTORS), tmp_path / "planted", task="digits")
    table = shipped_strategy(generator, 2).table_T4.clone()
    table[:, 2], table[:, 3] = 1, 0
    Schedule(table).save(tmp_path / "start.json")
    config = TrainingConfig.of(
        steps=2,
        generator=str(tmp_path / "planted"),
        schedule=str(tmp_path / "start.json"),
        parameters=("sampling_temperature",),
        reward="influence",
        trajectories=512,
        final_learning_rate=None,
        updates=100,
        action_std=(0.8, 0.5),
        learning_rate=4e-3,
        evaluate_every=100,
        evaluation_images=10,
        finalists=1,
    )
    distances, ratios = {}, {}
    for name in ("sees", "blind"):
        trainer = AdaNATTrainer.of(config.but({"policy.blind": name == "blind"}))
        for _ in range(config.adanat.updates):
            trainer.update()
        actor, nets = trainer.actor(), (trainer.env.generator, trainer.env.tokenizer)
        condition = balanced(trainer.env.generator.conditions(), 2000)
        drawn = rollout(actor, *nets, condition, seed=7)
        frame = drawn.frame.assign(odd=drawn.frame["condition"].astype(int) % 2)
        means = frame.groupby("odd")["sampling_temperature"].mean()
        ratios[name] = means[0] / means[1]
        plays = {"policy": actor, "mean": FixedPolicy(mean_schedule(drawn, 2))}
        plays |= {"within": Shuffled(actor, True), "across": Shuffled(actor, False)}
        plays |= {"start": FixedPolicy(trainer.env.action_map.schedule)}
        for kind, policy in plays.items():
            images = rollout(policy, *nets, condition, seed=8).images_NCHW
            distances[name, kind] = trainer.monitor.scorer.distance(images)
    assert ratios["sees"] < 0.8 and ratios["blind"] == pytest.approx(1)
    assert distances["sees", "policy"] < 0.5 * distances["sees", "start"]
    assert distances["blind", "policy"] < 0.5 * distances["blind", "start"]
    assert distances["sees", "policy"] < 0.85 * distances["blind", "policy"]
    assert distances["sees", "policy"] < 0.8 * distances["sees", "mean"]
    assert distances["sees", "policy"] < 0.8 * distances["sees", "across"]
    assert distances["sees", "within"] == pytest.approx(distances["sees", "policy"], rel=0.1)
    assert distances["blind", "across"] == distances["blind", "policy"] == distances["blind", "within"]
