"""One policy for a range of prices: it sees the price, also out of a file, and spends less the more it is."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn

import natgym
from agents import AdaNATConfig, AdaNATTrainer, TrainingConfig, load_policy
from agents.named import find_policies, find_policy
from agents.sb3 import SB3VecEnv
from generators.conditions import Condition, Labels
from generators.contract import Prediction
from generators.puzzles.glyphs import Glyphs, GlyphsConfig
from natgym.env.vector import DecodeVectorEnv
from natgym.task import Task

RANGE = (0.01, 0.25)
OPTIONS = {"task": "sudoku-4", "schedule": "linear:sampling=.1,remask=0", "steps": 4}
KINDS = {
    "reveal": {"actions": "reveal", "observation": "statistics"},
    "tokens": {"actions": "tokens", "observation": "statistics"},
    "parameters": {"observation": "statistics"},
}


def config_of(kind: str = "reveal", **settings: Any) -> TrainingConfig:
    usual = {
        **OPTIONS, **KINDS[kind], "reward": "valid", "objective": "valid", "price": RANGE, "updates": 2,
        "trajectories": 16, "minibatch": 64, "evaluation_images": 20, "evaluate_every": 2,
        "final_images": 20, "finalists": 2,
    }  # fmt: skip
    if kind == "parameters":
        usual["parameters"] = ("mask_ratio", "remask_temperature", "sampling_temperature")
    return TrainingConfig.of(**{**usual, **settings})


def heads_moved(trainer: AdaNATTrainer) -> AdaNATTrainer:
    """A trainer whose policy is somewhere, as after a long training."""
    torch.manual_seed(0)
    for name, parameter in trainer.ppo.policy.named_parameters():
        if "head" in name or "action_net" in name:
            parameter.data.normal_(std=0.5)
    return trainer


@pytest.mark.parametrize("kind", ["reveal", pytest.param("tokens", marks=pytest.mark.slow), "parameters"])
def test_it_resumes_to_the_bit_and_plays_what_it_learned_at_any_price(kind: str, tmp_path: Path) -> None:
    config = config_of(kind)
    whole = AdaNATTrainer.of(config)
    whole.fit(tmp_path / "whole")
    AdaNATTrainer.of(config, callbacks=[lambda trainer, _: trainer.done < 1]).fit(tmp_path / "halted")
    resumed = AdaNATTrainer.of(config)
    resumed.fit(tmp_path / "halted")
    ours, theirs = whole.ppo.policy.state_dict(), resumed.ppo.policy.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    logs = [(tmp_path / run / "metrics.csv").read_text() for run in ("whole", "halted")]
    assert logs[0] == logs[1]
    task = Task.load("sudoku-4")
    for price in (None, 0.02):
        name = f"{tmp_path}/whole/last" + ("" if price is None else f"@price={price}")
        actor: Any = whole.actor() if price is None else whole.actor().at(price)
        played = load_policy(name, task)
        drawn = natgym.rollout(played, task, num_images=24, seed=0)
        direct = natgym.rollout(actor, task, num_images=24, seed=0)
        assert torch.equal(drawn.tokens_NL, direct.tokens_NL) and (drawn.nfe_N == direct.nfe_N).all()
        assert played.price == (RANGE if price is None else price)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"env.price \[0.01, 0.25\], this one has 0.02"):
        AdaNATTrainer.of(config_of(kind, price=0.02)).fit(tmp_path / "whole")


def test_the_environment_and_a_rollout_agree_on_prices() -> None:
    trainer = heads_moved(AdaNATTrainer.of(config_of()))
    env, actor = trainer.env.like(num_envs=24), trainer.actor()
    seen = {}
    for price in (None, 0.02, 0.2):
        drawn = natgym.rollout(actor if price is None else actor.at(price), env.task, num_images=24, seed=0)
        options = {"condition": drawn.condition} | ({} if price is None else {"price": price})
        observation, _ = env.reset(seed=0, options=options)
        for _ in range(4):
            bits = trainer.ppo.policy.get_distribution(observation).mode()
            observation, _, _, _, info = env.step(bits)
        assert (info["tokens"] == drawn.tokens_NL.numpy()).all() and (info["nfe"] == drawn.nfe_N).all()
        seen[price] = info["nfe"].tolist()
    assert len({tuple(nfe) for nfe in seen.values()}) == 3, "it decides by the price"


def test_without_a_range_no_network_has_an_input_for_it() -> None:
    for kind in KINDS:
        with_it, without = (AdaNATTrainer.of(config_of(kind, price=price)) for price in (RANGE, 0.02))
        ours, theirs = (one.ppo.policy.state_dict() for one in (with_it, without))
        differ = {name for name in ours if name not in theirs or ours[name].shape != theirs[name].shape}
        words = "trunk.price." if kind == "parameters" else "trunk.embed.weight"
        assert differ and all(words in name for name in differ)


def test_a_price_is_told_where_there_is_one_to_tell(tmp_path: Path) -> None:
    AdaNATTrainer.of(config_of(updates=1)).fit(tmp_path / "run")
    AdaNATTrainer.of(config_of(updates=1, price=0.02)).fit(tmp_path / "one")
    task = Task.load("sudoku-4")
    [(label, policy)] = find_policies(f"{tmp_path}/run@price=.05", [4], task.generator)
    assert label == "run@price=0.05" and policy.price == 0.05  # type: ignore[attr-defined]
    assert find_policy(f"{tmp_path}/run@price=.05", None, task.generator).price == 0.05  # type: ignore[attr-defined]
    for spec, said in (
        (f"{tmp_path}/run@price=.5", "price 0.5: this policy learned prices from 0.01 to 0.25"),
        (f"{tmp_path}/one@price=.02", "price 0.02: this policy does not see prices"),
        ("linear@price=.02", "price 0.02: this policy does not see prices"),
        (f"{tmp_path}/run@price=low", "'low' is no price"),
    ):
        with pytest.raises(ValueError, match=said):
            find_policies(spec, [4], task.generator)
    natgym.check_policy(policy, task.generator)


def test_ppo_of_stable_baselines3_learns_as_it_is() -> None:
    env = DecodeVectorEnv(8, **OPTIONS, actions="reveal", observation="statistics", price=RANGE)  # type: ignore[arg-type]
    ppo = PPO("MultiInputPolicy", SB3VecEnv(env), n_steps=4, batch_size=8, n_epochs=1).learn(32)
    observation, _ = env.reset(seed=0)
    assert ppo.predict({key: values.numpy() for key, values in observation.items()})[0].shape == (8, 16)


L, V = 6, 4
WORTH = torch.tensor([0.4, 0.2, 0.1, 0.05, 0.025])  # of each link


class Links(nn.Module):
    """A planted difficulty: each token follows from the one before it, and from nothing else.

    So the passes that an image takes are the links that are right, but for luck, and each link's worth says
    up to which price its pass pays.
    """

    codebook_size = mask_id = V
    grid, num_tokens, width = (1, L), L, 2

    def __init__(self) -> None:
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(9.0))

    def forward(self, ids_BL: Tensor, condition: Condition, cache: None = None) -> Prediction:
        before_BL = torch.cat([torch.zeros_like(ids_BL[:, :1]), ids_BL[:, :-1]], dim=1)
        logits_BLV = self.sure * nn.functional.one_hot(before_BL, V + 1)[..., :V]
        known_BL = (ids_BL != V).float()
        places_L = torch.linspace(-1, 1, L).expand_as(known_BL)
        return Prediction(logits_BLV, torch.stack([known_BL, places_L], dim=-1))

    def conditions(self) -> Condition:
        return Labels.every(1, ("links",))


@pytest.mark.slow
def test_passes_fall_as_the_price_rises_where_it_is_planted_which_of_them_pay() -> None:
    glyphs = Glyphs(GlyphsConfig(symbols="0123", grid=(1, L)))

    def links(images: Tensor, condition: Condition) -> Tensor:
        ids_BL = glyphs.encode(images)
        return (ids_BL.diff(dim=1) == 0).float() @ WORTH

    env = DecodeVectorEnv(
        256, generator=Links(), tokenizer=glyphs, steps=L, reward=links, price=(0.01, 0.5), group=8,
        actions="reveal", observation="statistics", schedule="linear:sampling=.1,remask=0",
    )  # fmt: skip
    config = AdaNATConfig(updates=75, epochs=2, baseline="rloo", learning_rate=5e-3, final_learning_rate=None)
    trainer = AdaNATTrainer(env, config)
    for _ in range(config.updates):
        trainer.update()
    passes = []
    for price in (0.01, 0.03, 0.06, 0.12, 0.25, 0.5):
        policy = trainer.actor().at(price)
        drawn = natgym.rollout(policy, env.generator, glyphs, Labels(torch.zeros(400).long(), 1), seed=1)
        passes.append(float(drawn.nfe_N.mean()))
    assert all(one >= other for one, other in pairwise(passes)), passes
    assert passes[0] > 5 and passes[-1] < 3, passes
