"""The policy network against the recorded official one, and what the SB3 policy around it promises."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.adanat.actor import Actor, export_actor
from agents.adanat.network import AdaNATPolicy, PolicyConfig, StepEmbedding, Trunk, small_policy
from agents.sb3 import PPO, SB3VecEnv, TensorRolloutBuffer
from generators.checkpoints import from_pretrained, save_pretrained
from generators.rules import DecodeRules
from generators.schedules import Schedule, reference
from natgym.observations import Observer
from natgym.spaces import ActionMap, Preset, action_space
from rounding import GOLDEN, assert_rounded

STEPS = 4
OFFICIAL = {  # their name -> ours, inside the trunk
    "x_embedder": "embed",
    "t_embedder.mlp.0": "step.fc1",
    "t_embedder.mlp.2": "step.fc2",
    "adaLN1.adaLN_modulation.1": "norm1.modulation",
    "dw_conv": "depthwise",
    "pw_conv": "pointwise",
    "linear1": "fc1",
    "adaLN2.adaLN_modulation.1": "norm2.modulation",
    "linear2": "fc2",
    "adaLN3.adaLN_modulation.1": "norm3.modulation",
}


def make_policy(grid: tuple[int, int], width: int, config: PolicyConfig | None = None) -> AdaNATPolicy:
    torch.manual_seed(0)
    return AdaNATPolicy(
        Observer(grid, width, 0).space(STEPS),
        action_space(),
        lambda _: 1e-3,
        config=config or small_policy(),
        grid=grid,
    )


def export(policy: AdaNATPolicy, preset: Preset, schedule: Schedule) -> Actor:
    trunk: Any = policy.pi_features_extractor.trunk  # type: ignore[union-attr]
    width = policy.observation_space["features"].shape[1]  # type: ignore[index]
    observer = Observer(trunk.grid, width, 0)
    return export_actor(policy, observer, ActionMap.preset(preset, schedule), DecodeRules())


def observe(grid: tuple[int, int], width: int, rows: int = 5, step: int = 0) -> dict[str, Tensor]:
    features = torch.randn(rows, grid[0] * grid[1], width, generator=torch.Generator().manual_seed(1))
    return {
        "features": features,
        "masked": torch.ones(rows, grid[0] * grid[1], dtype=torch.uint8),
        "step": torch.full((rows, 1), float(step)),
    }


def mean_action(policy: AdaNATPolicy, observation: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return policy.get_distribution(observation).distribution.mean  # type: ignore[arg-type]


def perturb(module: nn.Module, std: float = 0.05) -> None:
    """Move every parameter, as training would."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += std * torch.randn(parameter.shape, generator=generator)


def load_official(policy: AdaNATPolicy, tensors: dict[str, Tensor]) -> None:
    """Load the recorded actor and critic; every one of our parameters but log_std is set."""
    theirs = {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}
    extractors: Any = {"actor": policy.pi_features_extractor, "critic": policy.vf_features_extractor}
    heads = {"actor": policy.action_net, "critic": policy.value_net}
    for part in ("actor", "critic"):
        for kind in ("weight", "bias"):
            heads[part].get_parameter(kind).data.copy_(theirs.pop(f"{part}.linear3.{kind}"))
        state = {
            f"{ours}.{kind}": theirs.pop(f"{part}.{official}.{kind}")
            for official, ours in OFFICIAL.items()
            for kind in ("weight", "bias")
        }
        extractors[part].trunk.load_state_dict(state)
    assert not theirs, f"recorded but not loaded: {sorted(theirs)}"


@pytest.fixture(scope="module")
def recorded(golden: Any, recipe_weight: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The recorded tensors with the weights of the recipe, and what describes them."""
    tensors, meta = golden("policy_tiny")
    drawn = {f"sd.{key}": recipe_weight(entry) for key, entry in meta["recipe_weights"].items()}
    return tensors | drawn, meta


@pytest.fixture(scope="module")
def official(recorded: Any) -> AdaNATPolicy:
    """The official actor and critic in our policy; tests leave its weights as they are."""
    tensors, meta = recorded
    widths = PolicyConfig(width=meta["kwargs"]["hidden_size"])
    policy = make_policy(recorded_grid(tensors), meta["kwargs"]["in_channels"], widths)
    load_official(policy, tensors)
    return policy


def recorded_grid(tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Official grids are squares."""
    side = math.isqrt(tensors["in.feat"].shape[1])
    return side, side


def golden_observation(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    features, step = tensors["in.feat"], tensors["in.timestep"]
    masked = torch.zeros(features.shape[:2], dtype=torch.uint8)
    return {"features": features, "masked": masked, "step": step.float()[:, None]}


@pytest.mark.golden
def test_recorded_means_and_values(recorded: Any, official: AdaNATPolicy) -> None:
    tensors, _ = recorded
    observation: Any = golden_observation(tensors)
    with torch.no_grad():
        values = official.predict_values(observation)
    assert tensors["out.action_mean"].std() > 0.1, "the recorded policy has to do something"
    expected = tensors["out.action_mean"], tensors["out.value"]
    for found, wanted in zip((mean_action(official, observation), values), expected, strict=True):
        torch.testing.assert_close(found, wanted, **GOLDEN)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "std"), [("0.6", (0.6,) * 4), ("0.3", (0.3,) * 4), ("_mixed", (0.6, 0.5, 0.4, 0.3))]
)
def test_recorded_log_probabilities_and_entropies(
    recorded: Any, official: AdaNATPolicy, name: str, std: tuple[float, ...]
) -> None:
    tensors, _ = recorded
    observation: Any = golden_observation(tensors)
    official.log_std.data.copy_(torch.tensor(std).log())
    with torch.no_grad():
        _, log_prob, entropy = official.evaluate_actions(observation, tensors["in.actions"])
    for found, kind in ((log_prob, "logprob"), (entropy, "entropy")):
        expected = tensors[f"out.{kind}_std{name}"]
        assert_rounded(found, expected)


@pytest.mark.golden
def test_recorded_sinusoid_of_the_step(golden: Any) -> None:
    tensors, _ = golden("policy_tiny")
    expected = tensors["out.timestep_embedding"]
    seen: list[Tensor] = []
    embedding = StepEmbedding(expected.shape[1], 8)
    embedding.fc1.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    embedding(torch.arange(len(expected)).float())
    assert_rounded(seen[0], expected)


@pytest.mark.golden
def test_three_recorded_updates(recorded: Any) -> None:
    """AdaNAT's returns, advantages and loss are SB3's PPO with normalized returns, step by step."""
    tensors, meta = recorded
    run = {key.removeprefix("ppo."): value for key, value in tensors.items() if key.startswith("ppo.")}
    T, N = meta["ppo"]["T"], meta["ppo"]["rollouts"] * meta["ppo"]["batch"]
    channels, std = meta["kwargs"]["in_channels"], meta["ppo"]["std"]
    env: Any = SimpleNamespace(
        num_envs=N,
        render_mode=None,
        single_observation_space=Observer(recorded_grid(tensors), channels, 0).space(T),
        single_action_space=action_space(),
    )
    ppo = PPO(
        AdaNATPolicy,
        SB3VecEnv(env),
        n_steps=T,
        batch_size=T * N,
        n_epochs=meta["ppo"]["epochs"],
        learning_rate=meta["ppo"]["adam_lr"],
        clip_range=meta["ppo"]["eps_clip"],
        gamma=meta["ppo"]["gamma"],
        gae_lambda=1.0,
        ent_coef=0.01,
        normalize_advantage=False,
        max_grad_norm=math.inf,
        rollout_buffer_kwargs={"normalize_returns": True},
        policy_kwargs={
            "config": PolicyConfig(width=meta["kwargs"]["hidden_size"]),
            "grid": recorded_grid(tensors),
            "optimizer_kwargs": {"eps": 1e-8},
        },
    )
    policy, buffer = ppo.policy, ppo.rollout_buffer
    assert isinstance(policy, AdaNATPolicy) and isinstance(buffer, TensorRolloutBuffer)
    load_official(policy, tensors)
    policy.log_std.data.fill_(math.log(std))

    def by_step(values: Tensor) -> Tensor:
        """(rollout, step, row) -> (step, rollout and row)"""
        shaped = values.reshape(meta["ppo"]["rollouts"], T, meta["ppo"]["batch"], *values.shape[1:])
        return shaped.transpose(0, 1).flatten(1, 2)

    features, actions = by_step(run["feats"].flatten(0, 2)).float(), by_step(run["actions"])
    observations = [
        {"features": features[t], "masked": torch.zeros(N, 256), "step": torch.full((N, 1), float(t))}
        for t in range(T)
    ]
    starts, rewards = np.arange(T) == 0, np.zeros((T, N), np.float32)
    rewards[-1] = run["reward_terminal"].flatten()
    for t in range(T):
        with torch.no_grad():
            values, log_prob, _ = policy.evaluate_actions(observations[t], actions[t])  # type: ignore[arg-type]
        buffer.add(observations[t], actions[t].numpy(), rewards[t], np.full(N, starts[t]), values, log_prob)
    buffer.compute_returns_and_advantage(torch.zeros(N, 1), np.ones(N))
    names = {"log_probs": "old_logprobs", "values": "old_values", "returns": "returns_normalised"}
    for name, theirs in (names | {"advantages": "advantages"}).items():
        torch.testing.assert_close(
            torch.from_numpy(getattr(buffer, name)), by_step(run[theirs]), atol=1e-4, rtol=0
        )
    ppo.train()
    torch.testing.assert_close(
        torch.tensor(ppo.logger.name_to_value["train/loss"]), run["losses"][-1], atol=1e-4, rtol=0
    )
    for head, part in ((policy.action_net, "actor"), (policy.value_net, "critic")):
        key, weight = f"{part}.linear3.weight", head.get_parameter("weight")
        moved, expected = weight - tensors[f"sd.{key}"], run[f"{key}_after3"] - tensors[f"sd.{key}"]
        assert expected.abs().max() > 2e-6, "three steps of Adam at 1e-6"
        assert (moved - expected).abs().mean() < 0.02 * expected.abs().mean()
    with torch.no_grad():
        after = torch.stack(
            [policy.evaluate_actions(observations[t], actions[t])[1] for t in range(T)]  # type: ignore[arg-type]
        )
    torch.testing.assert_close(after, by_step(run["logprobs_after3"]), atol=1e-3, rtol=0)
    assert (by_step(run["old_logprobs"]) - after).abs().max() > 0.02, "the update moved the policy"


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (5, 3)])
def test_an_untrained_policy_plays_the_schedule_on_any_grid(grid: tuple[int, int]) -> None:
    policy, schedule = make_policy(grid, 12), reference(STEPS)
    actor = export(policy, "default", schedule)
    for step in range(STEPS):
        observation = observe(grid, 12, step=step)
        observation["features"] *= 100
        assert torch.equal(mean_action(policy, observation), torch.zeros(5, 4))
        with torch.no_grad():
            assert torch.equal(policy.predict_values(observation), torch.zeros(5, 1))
        assert torch.equal(actor(observation, step).table, schedule.params(step, 5).table)


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (5, 3)])
def test_a_moved_policy_tells_features_positions_and_steps_apart(grid: tuple[int, int]) -> None:
    policy = make_policy(grid, 12)
    perturb(policy)
    observation = observe(grid, 12)
    base = mean_action(policy, observation)
    assert base.std(0).min() > 1e-4, "rows with other features get other actions"
    flipped = observation | {"features": observation["features"].flip(1)}
    assert (mean_action(policy, flipped) - base).abs().min() > 1e-6, "the place of a feature counts"
    assert (mean_action(policy, observe(grid, 12, step=2)) - base).abs().min() > 1e-6
    hidden = observation | {"masked": torch.zeros_like(observation["masked"])}
    assert torch.equal(mean_action(policy, hidden), base), "the paper's network does not read the mask"


@pytest.mark.parametrize("grid", [(4, 4), (2, 6), (5, 3)])
def test_tokens_lie_on_the_grid_row_by_row(grid: tuple[int, int]) -> None:
    """The convolution of cell (i, j) reads the tokens around row 2i, column 2j, and nothing else."""
    rows, columns = grid
    trunk = Trunk(small_policy(), grid, 12)
    perturb(trunk)
    seen: list[Tensor] = []
    trunk.depthwise.register_forward_hook(lambda _, __, output: seen.append(output))
    features, step = observe(grid, 12, rows=1)["features"], torch.zeros(1, 1)
    with torch.no_grad():
        trunk({"features": features, "step": step})
        for token in range(rows * columns):
            moved = features.clone()
            moved[:, token] += torch.linspace(-1, 1, 12)
            trunk({"features": moved, "step": step})
            changed = {tuple(cell) for cell in (seen[-1] != seen[0]).any(1)[0].nonzero().tolist()}
            row, column = divmod(token, columns)
            assert changed == {
                (i, j)
                for i in range((rows + 1) // 2)
                for j in range((columns + 1) // 2)
                if abs(2 * i - row) <= 1 and abs(2 * j - column) <= 1
            }


def test_actor_and_critic_share_no_parameter() -> None:
    policy = make_policy((4, 4), 12)
    perturb(policy)
    observation = observe((4, 4), 12)
    actor = {*policy.pi_features_extractor.parameters(), *policy.action_net.parameters()}
    critic = {*policy.vf_features_extractor.parameters(), *policy.value_net.parameters()}
    assert not actor & critic and {policy.log_std} == {*policy.parameters()} - actor - critic
    policy.predict_values(observation).sum().backward()  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in actor)
    assert all(parameter.grad is not None for parameter in critic)


def test_the_standard_deviation_gets_no_gradient() -> None:
    policy = make_policy((4, 4), 12)
    before = policy.log_std.clone()
    _, log_prob, entropy = policy.evaluate_actions(observe((4, 4), 12), torch.randn(5, 4))  # type: ignore[arg-type]
    (log_prob.sum() + F.mse_loss(log_prob, torch.ones(5))).backward()
    policy.optimizer.step()
    assert entropy is not None and not entropy.requires_grad
    assert policy.log_std.grad is None and torch.equal(policy.log_std, before)


@pytest.mark.parametrize("actions", ["default", "paper", "paper-no-residual"])
def test_an_exported_actor_plays_what_was_learned(tmp_path: Path, actions: Preset) -> None:
    policy, schedule = make_policy((5, 3), 12), reference(STEPS, remask=4.0, guidance=2.0, name="mine")
    perturb(policy)
    actor = export(policy, actions, schedule)
    save_pretrained(actor, tmp_path / "policy")
    loaded: Any = from_pretrained(tmp_path / "policy")
    assert loaded.steps == STEPS and loaded.action_map().schedule.name == "mine"
    for step in range(STEPS):
        observation = observe((5, 3), 12, step=step)
        mean = mean_action(policy, observation)
        with torch.no_grad():
            played = loaded.head(loaded.trunk(observation))
        assert torch.equal(played, mean) and mean.abs().min() > 0
        expected = ActionMap.preset(actions, schedule)(mean, step).table
        assert torch.equal(actor(observation, step).table, expected)
        assert torch.equal(loaded(observation, step).table, expected)


def test_an_exported_actor_is_a_copy() -> None:
    policy, schedule = make_policy((4, 4), 12), Schedule(reference(STEPS).table_T4.clone())
    actor = export(policy, "default", schedule)
    before = {name: tensor.clone() for name, tensor in actor.state_dict().items()}
    perturb(policy)
    schedule.table_T4.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in actor.state_dict().items())
    assert not actor.training and not any(parameter.requires_grad for parameter in actor.parameters())


def test_the_initial_trunk_is_the_paper_s_and_not_sb3_s() -> None:
    """SB3's orthogonal initialisation would reach into the features extractor."""
    policy = make_policy((4, 4), 12)
    for extractor in (policy.pi_features_extractor, policy.vf_features_extractor):
        trunk: Any = extractor.trunk
        for layer in (trunk.embed, trunk.fc1, trunk.fc2):
            bound = (6 / sum(layer.weight.shape)) ** 0.5
            assert layer.weight.abs().max() <= bound and layer.weight.std() > 0.5 * bound
            assert not layer.bias.any()
        for layer in (trunk.step.fc1, trunk.step.fc2):
            assert 0.015 < layer.weight.std() < 0.025 and not layer.bias.any()
        for norm in (trunk.norm1, trunk.norm2, trunk.norm3):
            assert not norm.modulation.weight.any() and not norm.modulation.bias.any()
        gram = trunk.fc1.weight @ trunk.fc1.weight.T
        assert not torch.allclose(gram, gram.diagonal().mean() * torch.eye(len(gram)), atol=1e-2)
