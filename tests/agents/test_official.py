"""Official policy files: every key accounted for, and the recorded run played by a converted actor."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.adanat.actor import Actor, ActorConfig
from agents.official import ADAGEN_POLICY, ADANAT_POLICY, NETWORK_KEYS, POLICY_FORMATS, actor_from
from generators.checkpoints import from_pretrained, save_pretrained
from generators.conditions import Labels
from generators.decoding import advance, start
from generators.noise import RecordedNoise
from generators.rules import DecodeRules
from generators.schedules import reference
from generators.weights import convert, read
from natgym.env.vector import DecodeVectorEnv
from natgym.observations import observe
from natgym.rollouts import rollout
from natgym.spaces import ActionMap
from natgym.task import Task
from rounding import GOLDEN, assert_rounded

COMPAT = Path(__file__).resolve().parents[3] / "shared" / "compat"
SIZES = {"width": 8, "channels": 4, "hidden": (12, 6), "frequencies": 8}


def official_keys(name: str) -> dict[str, Tensor]:
    path = COMPAT / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no list of official keys {path}")
    keys = json.loads(path.read_text())["keys"]
    return {key: torch.empty(entry["shape"], device="meta") for key, entry in keys.items()}


def flat(width: int, seed: int = 0) -> dict[str, Tensor]:
    """A small AdaGen file for a grid of 4 x 4, nothing at zero."""
    config = ActorConfig(
        policy=SIZES, grid=(4, 4), features_width=width, steps=1, actions="paper", schedule_name=""
    )
    state = Actor(config).state_dict()
    random = torch.Generator().manual_seed(seed)
    return {
        theirs + kind: torch.randn(state[ours + kind].shape, generator=random) / 4
        for theirs, ours in NETWORK_KEYS.items()
        for kind in ("weight", "bias")
    }


def trained(width: int) -> dict[str, Tensor]:
    """The same as AdaNAT saves it; only the actor of policy_old is the one that `flat` makes."""
    copies = {f"{policy}.{part}." for policy in ("policy", "policy_old") for part in ("actor", "critic")}
    return {
        prefix + key: tensor
        for prefix in sorted(copies)
        for key, tensor in flat(width, seed=0 if prefix == "policy_old.actor." else 1).items()
    }


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "width", "actions"),
    [("adanat_policy", 768, "paper-no-residual"), ("adanat_policy_cc3m", 1152, "paper")],
)
def test_every_key_of_the_official_policies_is_read_or_named(name: str, width: int, actions: str) -> None:
    state = official_keys(name)
    converted = convert(state, formats=POLICY_FORMATS)
    config = converted.config
    assert converted.format is ADANAT_POLICY
    assert (config.features_width, config.grid, config.steps) == (width, (16, 16), 8)
    assert (config.actions, config.smoothing) == (actions, 0)
    assert config.policy == {"width": 512, "channels": 128, "hidden": (1024, 512), "frequencies": 256}
    assert len(converted.weights) == 22 and len(converted.weights) + len(converted.ignored) == len(state)
    prefix = "policy_old.actor."
    adagen = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    converted = convert(adagen, formats=POLICY_FORMATS)
    assert converted.format is ADAGEN_POLICY and not converted.ignored and len(converted.weights) == 22
    config = converted.config
    assert (config.steps, config.actions, config.smoothing) == (16, "paper", 0.8)


@pytest.mark.golden
def test_the_recorded_run_is_played_by_the_converted_policy(golden: Any, recipe_weight: Any) -> None:
    """Mean actions, parameters and every token of three runs; a step may reveal nothing."""
    tensors, meta = golden("loop_adanat_policy")
    network = {
        key.removeprefix("policy."): value for key, value in tensors.items() if key.startswith("policy.")
    }
    network |= {key: recipe_weight(entry) for key, entry in meta["recipe_weights"].items()}
    official = {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}
    generator: Any = convert(official, heads=meta["kwargs"]["num_heads"]).build()
    condition = Labels(tensors["in.context"][:, 0], meta["uncond_class"])
    for name, facts in meta["runs"].items():
        run = {key.removeprefix(f"run.{name}."): value for key, value in tensors.items()}
        actions = "paper" if facts["heu"] else "paper-no-residual"
        given = {"steps": facts["T"], "actions": actions, "smoothing": 0.0}
        actor = actor_from(convert(network, formats=POLICY_FORMATS, **given))
        noise = RecordedNoise()
        if facts["noisy"]:
            noise = RecordedNoise(run["cat_noise_x16"] / 16, run["gumbel"])
        state = start(generator, condition, steps=facts["T"])
        for step in range(facts["T"]):
            decision = actor.decide(observe(state, generator.mask_id), step)
            assert decision.action_B4 is not None
            torch.testing.assert_close(decision.action_B4, run["action_mean"][step], **GOLDEN)
            columns = ("gen_ratios", "temp", "samp_temp", "cfg")
            for found, column in zip(decision.params, columns, strict=True):
                expected = run[f"schedule.manual_{column}"][step].double()
                torch.testing.assert_close(found, expected, **GOLDEN)
            state = advance(
                generator, state, decision.params, noise, DecodeRules(min_reveal=0, guidance_floor=0)
            )
            assert torch.equal(state.drawn_BL, run["sampled_ids"][step].long()), f"{name} {step}"
            if not state.done:
                assert torch.equal(state.ids_BL, run["ids_after"][step].long()), f"{name} {step}"
                assert state.masked_B.tolist() == facts["n_masked_after"][step]
        assert torch.equal(state.ids_BL, run["final_ids"].long())


@pytest.mark.parametrize("form", ["adanat", "adagen"])
def test_a_file_becomes_an_actor_that_plays_alike_in_env_and_rollouts(form: str, tmp_path: Path) -> None:
    task = Task.load("digits")
    generator, tokenizer, width = task.generator, task.tokenizer, task.generator.width
    if form == "adanat":
        content = {"model": trained(width), "args": argparse.Namespace(heu=0), "global_step": 7}
        torch.save(content, tmp_path / "ckpt_7.pth")
        state = read(tmp_path / "ckpt_7.pth")
    else:
        torch.save(flat(width), tmp_path / "maskgit_policy.pth")
        state = read(tmp_path / "maskgit_policy.pth")
    actor = actor_from(convert(state, formats=POLICY_FORMATS, steps=3))
    assert actor.config.smoothing == (0.8 if form == "adagen" else 0)
    save_pretrained(actor, tmp_path / "policy")
    actor = from_pretrained(tmp_path / "policy")  # type: ignore[assignment]
    condition = generator.conditions()
    drawn = rollout(actor, generator, tokenizer, condition, seed=5)
    env = DecodeVectorEnv(
        len(condition),
        generator=generator,
        tokenizer=tokenizer,
        steps=3,
        reward=lambda images, _: images.new_zeros(len(images)),
        actions=actor.config.actions,
        smoothing=actor.config.smoothing,
        rules=DecodeRules(min_reveal=0),
        autoreset=False,
    )
    observation, _ = env.reset(seed=5, options={"condition": condition})
    info: dict[str, Any] = {}
    while "tokens" not in info:
        action = actor.head(actor.trunk(observation))
        assert action.std() > 0.05
        observation, _, _, _, info = env.step(action)
    assert torch.equal(torch.as_tensor(info["tokens"]), drawn.tokens_NL)


def test_adagen_smooths_what_its_network_does_not_see() -> None:
    """a_k = .8 a_{k-1} + .2 (action_k + residual'_k) before the activation, by a loop as in its code."""
    actor = actor_from(convert(flat(12), formats=POLICY_FORMATS))
    assert actor.trunk.previous is None and actor.steps == 16
    outputs_TB4 = torch.randn(16, 5, 4, generator=torch.Generator().manual_seed(1))
    around = ActionMap.preset("paper", reference(16))
    residual = torch.tensor(around._starts)
    compensated = residual.clone()
    compensated[1:] = (residual[1:] - 0.8 * residual[:-1]) / 0.2
    played, smoothed = torch.zeros(5, 4), torch.zeros(5, 4, dtype=torch.float64)
    for step in range(16):
        played = actor.action_map().smooth(outputs_TB4[step], played, step)
        theirs = outputs_TB4[step].double() + compensated[step].double()
        smoothed = theirs if step == 0 else 0.8 * smoothed + 0.2 * theirs
        expected = torch.nn.functional.softplus(smoothed)
        expected[:, 0] = torch.sigmoid(smoothed[:, 0])
        assert_rounded(actor.action_map()(played, step).table, expected)


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        ({"linear3.bias": None}, {}, "looks like an AdaGen policy.*missing: linear3.bias"),
        ({"linear4.bias": torch.zeros(3)}, {}, "unknown: linear4.bias"),
        ({}, {"actions": "other"}, "actions 'other' is not one of default, paper"),
        ({}, {"steps": 0}, "steps 0, .*: steps are at least 1"),
        ({}, {"heads": 4}, "heads can't be given for an AdaGen policy"),
        ({}, {"grid": (9, 9)}, r"linear1.weight is \(12, 16\), not \(12, 100\)"),
    ],
)
def test_a_wrong_policy_file_is_named_in_one_line(change: Any, given: Any, said: str) -> None:
    state = {key: value for key, value in (flat(12) | change).items() if value is not None}
    with pytest.raises(ValueError, match=said) as caught:
        convert(state, formats=POLICY_FORMATS, **given)
    assert "\n" not in str(caught.value)
