"""What policies observe and play: the same in environment, rollout and buffer, for every option."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import agents.adanat.network
from agents.adanat.actor import export_actor
from agents.adanat.config import TrainingConfig
from agents.adanat.network import AdaNATPolicy, PolicyConfig
from agents.adanat.trainer import AdaNATTrainer, train
from agents.sb3 import PPO, LearnedPolicy, SB3VecEnv
from generators.checkpoints import from_pretrained, save_pretrained
from generators.conditions import Condition, Labels
from generators.contract import Prediction
from generators.enat import ENAT, enat_digits
from generators.live_bytes import LiveBytes
from generators.schedules import PARAMETERS
from natgym.env.vector import DecodeVectorEnv
from natgym.rollouts import ACTIONS, rollout
from natgym.task import Task
from rounding import assert_rounded

T, N = 3, 8
TINY = PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8)


def sum_of_pixels(images_BCHW: Tensor, condition: Condition) -> Tensor:
    return images_BCHW.sum((1, 2, 3))


def make_env(kind: str = "nat", **arguments: Any) -> DecodeVectorEnv:
    if kind == "enat":
        torch.manual_seed(0)
        network = ENAT(enat_digits()).eval()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.15)
        arguments |= {"generator": network, "tokenizer": "digits", "reward": sum_of_pixels}
    return DecodeVectorEnv(N, **({"steps": T, "autoreset": False} | arguments))


def make_ppo(env: DecodeVectorEnv, **changes: Any) -> PPO:
    """Build PPO with a policy that is somewhere, as in the middle of a training."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"n_steps": env.steps, "batch_size": 6, "n_epochs": 1, "gamma": 1.0}
    policy_kwargs = {"config": TINY, "grid": env.observer.features_grid}
    ppo = PPO(AdaNATPolicy, SB3VecEnv(env), policy_kwargs=policy_kwargs, **(settings | changes))
    for parameter in ppo.policy.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return ppo


PLAYS: list[dict[str, Any]] = [
    {},
    {"parameters": ("mask_ratio", "guidance_scale")},
    {"smoothing": 0.8},
    {"observation": "pooled"},
    {"observation": "pooled", "parameters": ("sampling_temperature",), "smoothing": 0.5, "actions": "paper"},
]


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: ",".join(play) or "plain")
def test_a_saved_policy_replays_in_a_rollout_what_it_plays_in_the_env(
    play: dict[str, Any], tmp_path: Path
) -> None:
    env = make_env(schedule="maskgit", **play)
    ppo = make_ppo(env)
    actor = export_actor(ppo.policy, env.observer, env.action_map, env.rules)  # type: ignore[arg-type]
    save_pretrained(actor, tmp_path)
    loaded: Any = from_pretrained(tmp_path)
    observation, _ = env.reset(seed=4)
    given, played, values = [], [], []
    for _ in range(T):
        with torch.no_grad():
            actions, value, _ = ppo.policy(observation, deterministic=True)  # type: ignore[arg-type]
        observation, *_, info = env.step(actions)
        given.append(actions.detach().numpy())
        played.append([info[name] for name in PARAMETERS])
        values.append(value.detach().numpy()[:, 0])
    condition = Labels((4 + torch.arange(N)) % 10, 10)
    learned = LearnedPolicy(ppo.policy, env.observer, env.action_map)
    for policy in (loaded, learned):
        drawn = rollout(policy, env.generator, env.tokenizer, condition, seed=4)
        assert drawn.tokens_NL.tolist() == info["tokens"].tolist()
        for step, own in drawn.frame.groupby("step"):
            # To rounding, which depends on where in memory a file's weights come to lie.
            assert_rounded(own[list(PARAMETERS)].to_numpy().T, played[step])
            told = [ACTIONS[column] for column in env.action_map.columns]
            assert_rounded(own[told], given[step])
            assert own[list(ACTIONS)].notna().sum(axis=1).eq(len(told)).all()
            if policy is learned:
                assert_rounded(own["value"], values[step])
            else:
                assert own["value"].isna().all(), "the critic is not exported"


def test_the_network_reads_the_action_played_before() -> None:
    env = make_env(smoothing=0.8)
    ppo = make_ppo(env)
    observation, _ = env.reset(seed=0)
    moved = observation | {"previous_action": observation["previous_action"] + 1}
    one, two = (ppo.policy.get_distribution(seen).mode() for seen in (observation, moved))  # type: ignore[arg-type]
    assert (one - two).abs().min() > 1e-6


@pytest.mark.parametrize("kind", ["nat", "enat"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_come_again_from_the_tokens(kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each minibatch has the features that the environment showed; training on them is the same."""
    ppo = make_ppo(make_env(kind, observation="tokens", dtype=dtype))
    buffer: Any = ppo.rollout_buffer
    assert buffer.recomputes and buffer.store.keys() == {"masked", "step", "tokens"}
    stored: dict[int, Tensor] = {}
    add = buffer.add
    monkeypatch.setattr(
        buffer,
        "add",
        lambda obs, *rest: (stored.update({buffer.pos: obs["features"].clone()}), add(obs, *rest)),
    )
    seen = []
    samples = buffer._get_samples

    def compare(indices: np.ndarray, env: Any = None) -> Any:
        found = samples(indices)
        for index, features in zip(indices, found.observations["features"], strict=True):
            row, step = divmod(int(index), T)
            expected = stored[step][row]
            assert features.dtype == expected.dtype
            torch.testing.assert_close(features.float(), expected.float(), atol=1e-4, rtol=2e-3)
            seen.append((row, step))
        return found

    monkeypatch.setattr(buffer, "_get_samples", compare)
    metrics = ppo.update(3)
    assert sorted(seen) == [(row, step) for row in range(N) for step in range(T)]
    plain = make_ppo(make_env(kind, dtype=dtype)).update(3)
    assert metrics == pytest.approx(plain, rel=1e-3, abs=1e-5)
    assert buffer.source is None


def test_features_come_again_only_for_whole_episodes_of_update() -> None:
    ppo = make_ppo(make_env(observation="tokens", autoreset=True), n_steps=2 * T)
    with pytest.raises(ValueError, match=f"a rollout is one episode of {T}"):
        ppo.update(0)
    with pytest.raises(ValueError, match="by PPO.update alone"):
        make_ppo(make_env(observation="tokens", autoreset=True)).learn(T * N)


def test_learning_across_resets_stores_what_was_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's own loop, rollouts that cut episodes: nothing is overwritten on its way into the buffer."""
    ppo = make_ppo(make_env(autoreset=True), n_steps=2, batch_size=8)
    buffer: Any = ppo.rollout_buffer
    seen: list[dict[str, Tensor]] = []
    add, rollouts = buffer.add, []

    def keep(obs: Any, *rest: Any) -> None:
        add(obs, *rest)
        seen.append({key: value.clone() for key, value in obs.items()})

    def compare() -> None:
        for position, observation in enumerate(seen[-2:]):
            for key, value in observation.items():
                assert torch.equal(buffer.store[key][position], value)
        rollouts.append([int(observation["step"][0, 0]) for observation in seen[-2:]])

    monkeypatch.setattr(buffer, "add", keep)
    monkeypatch.setattr(ppo, "train", compare)
    ppo.learn(3 * 2 * N)
    assert rollouts == [[0, 1], [2, 0], [1, 2]], "episodes of three steps"
    first = [observation["features"] for observation in seen if not observation["step"].any()]
    assert len(first) == 2 and not torch.equal(*first), "each episode begins with its own conditions"


def test_large_batches_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env(smoothing=0.5)
    ppo = make_ppo(env)
    observation, _ = env.reset(seed=0)
    rows: list[int] = []
    ppo.policy.pi_features_extractor.register_forward_hook(lambda _, __, output: rows.append(len(output)))  # type: ignore[union-attr]
    torch.manual_seed(1)
    with torch.no_grad():
        whole = *ppo.policy(observation), ppo.policy.predict_values(observation)  # type: ignore[arg-type]
    monkeypatch.setattr(agents.adanat.network, "CHUNK_BYTES", 3 * 4 * 16 * 64)
    torch.manual_seed(1)
    with torch.no_grad():
        parts = *ppo.policy(observation), ppo.policy.predict_values(observation)  # type: ignore[arg-type]
    assert rows == [8, 3, 3, 2]
    for one, two in zip(whole, parts, strict=True):
        assert_rounded(one, two)


def test_a_gradient_in_chunks_is_that_of_the_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each chunk nothing is kept but its observation."""
    env = make_env(smoothing=0.5)
    policy: Any = make_ppo(env).policy
    for parameter in policy.parameters():  # heads begin at zero, and pass no gradient on
        torch.nn.init.normal_(parameter, std=0.1)
    observation, _ = env.reset(seed=0)
    actions = torch.randn(len(observation["step"]), 4)

    def learn() -> list[torch.Tensor]:
        values, log_probs, _ = policy.evaluate_actions(observation, actions)
        policy.zero_grad()
        (values.square().sum() + log_probs.sum()).backward()
        return [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]

    whole = learn()
    rows: list[int] = []
    policy.pi_features_extractor.register_forward_hook(lambda _, __, output: rows.append(len(output)))
    monkeypatch.setattr(agents.adanat.network, "CHUNK_BYTES", 3 * 4 * 16 * 64)
    parts = learn()
    assert rows[:3] == [3, 3, 2] and sorted(rows[3:]) == [2, 3, 3], "once forward, and once more for each"
    assert any(gradient.any() for gradient in whole)
    for one, two in zip(whole, parts, strict=True):
        assert_rounded(one, two)


class Wide(nn.Module):
    """A generator of the papers' geometry that costs nothing: only its features are large."""

    codebook_size = mask_id = 128
    grid, num_tokens, width = (4, 4), 16, 4096

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, ids_BL: Tensor, condition: Condition, cache: Any = None) -> Prediction:
        features_BLD = torch.full((*ids_BL.shape, self.width), 0.5) * ids_BL[..., None]
        return Prediction(torch.zeros(*ids_BL.shape, 128), features_BLD)

    def conditions(self) -> Condition:
        return Labels.every(10)


def test_a_rollout_takes_little_more_than_its_observations() -> None:
    steps, rows = 8, 16
    with LiveBytes(lambda tensor: tensor.dtype == torch.float16) as memory:
        env = DecodeVectorEnv(
            rows,
            generator=Wide(),
            tokenizer=Task.load("digits").tokenizer,
            reward=sum_of_pixels,
            steps=steps,
            dtype="float16",
            autoreset=False,
        )
        ppo = make_ppo(env, batch_size=8)
        ppo.update(0)
        ppo.update(1)
    arithmetic = steps * rows * Wide.num_tokens * Wide.width * 2
    assert arithmetic <= memory.peak <= 1.2 * arithmetic


class Marked(Tensor):
    """A tensor that lists its copies to the host."""

    copies: ClassVar[list[tuple[str, tuple[int, ...]]]] = []

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(function, "__name__", "")) in ("cpu", "tolist", "item", "__float__", "__bool__"):
            cls.copies.append((name, tuple(args[0].shape)))
            return super().__torch_function__(function, types, args, kwargs or {}).as_subclass(Tensor)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_one_copy_to_the_host_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's of the actions; values and log-probabilities follow when the rollout is full."""
    ppo = make_ppo(make_env())
    buffer: Any = ppo.rollout_buffer
    decide = ppo.policy.forward

    def on_device(*seen: Any) -> Any:
        return [tensor.as_subclass(Marked) for tensor in decide(*seen)]

    reset = buffer.reset

    def reset_on_device() -> None:
        reset()
        buffer.values, buffer.log_probs = (x.as_subclass(Marked) for x in (buffer.values, buffer.log_probs))

    monkeypatch.setattr(ppo.policy, "forward", on_device)
    monkeypatch.setattr(buffer, "reset", reset_on_device)
    monkeypatch.setattr(ppo, "train", lambda: None)
    monkeypatch.setattr(Marked, "copies", [])
    ppo.update(0)
    assert Marked.copies == [("cpu", (N, 4))] * T + [("cpu", (2, T, N))]
    assert isinstance(buffer.values, np.ndarray) and np.abs(buffer.values).min() > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [({"smoothing": 1.5}, "smoothing 1.5"), ({"parameters": ("nonsense",)}, "parameters .* are not")],
)
def test_wrong_options_are_told_before_anything_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingConfig.of(**options)


def test_training_takes_the_options_from_its_config(tmp_path: Path) -> None:
    """Parameters, smoothing and pooled features reach environment, network and exported policy."""
    config = TrainingConfig.of(
        steps=2,
        updates=1,
        trajectories=32,
        epochs=1,
        minibatch=32,
        discriminator_batch=16,
        warmup=1,
        evaluate_every=1,
        evaluation_images=40,
        finalists=1,
        reward="adversarial",
        policy=TINY,
        parameters=("mask_ratio", "guidance_scale"),
        smoothing=0.6,
        observation="pooled",
    )
    trainer = AdaNATTrainer.of(config)
    assert trainer.env.action_space.shape == (32, 2) and trainer.env.action_map.smoothing == 0.6
    train(config, tmp_path, lambda metrics: None)
    loaded: Any = from_pretrained(tmp_path / "policy")
    assert loaded.config.pooled_from is not None and tuple(loaded.config.parameters) == config.env.parameters
    condition = Labels(torch.arange(10), 10)
    frame = rollout(loaded, trainer.env.generator, trainer.env.tokenizer, condition, seed=0).frame
    fixed = frame.groupby("step")[["remask_temperature", "sampling_temperature"]].nunique()
    assert (fixed == 1).all(axis=None) and frame["action_remask_temperature"].isna().all()
