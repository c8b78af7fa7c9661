"""What a training is said to take is what its tensors take."""

from typing import Any

import pytest
import torch

from agents.adanat import plan
from agents.adanat.config import AdaNATConfig, TrainingConfig
from agents.adanat.learned import new_ppo
from agents.adanat.network import PolicyConfig
from agents.adanat.plan import Need, Plan, memory_plan, refuse_too_large
from generators.live_bytes import LiveBytes
from generators.nat import NAT, nat_l
from generators.vqgan import VQGAN, vqgan_f16
from natgym.env.vector import DecodeVectorEnv
from natgym.rewards import AdversarialConfig, AdversarialReward


def peaks(env: DecodeVectorEnv, config: AdaNATConfig) -> dict[str, int]:
    """Return the most bytes alive in a rollout, its images included, and in PPO's epochs on it."""
    found = {}

    def watched() -> None:
        found["rollout"], memory.peak = memory.peak, memory.bytes
        train()
        found["gradient"] = memory.peak

    with LiveBytes() as memory:
        ppo = new_ppo(env, config)
        train, ppo.train = ppo.train, watched  # type: ignore[method-assign]
        for update in range(2):  # Adam's moments are there from the second on
            memory.peak = memory.bytes
            ppo.update(update)
    return found


@pytest.mark.parametrize(
    ("task", "rows", "steps", "minibatch", "micro_batch", "observation"),
    [
        ("digits", 256, 2, 512, None, "features"),
        ("digits", 512, 4, None, 64, "features"),
        ("mnist/enat", 64, 2, 64, 16, "features"),
        ("digits", 256, 4, 512, 256, "tokens"),
    ],
)
def test_a_plan_is_what_tensors_take(
    task: str, rows: int, steps: int, minibatch: int | None, micro_batch: int | None, observation: Any
) -> None:
    env = DecodeVectorEnv(
        rows, task=task, steps=steps, micro_batch=micro_batch, observation=observation, autoreset=False
    )
    assert_as_planned(env, AdaNATConfig(minibatch=minibatch))


@pytest.mark.slow
def test_a_plan_is_what_tensors_take_at_the_papers_sizes() -> None:
    """Random weights of NAT-L and the f16 VQGAN, the paper's policy and a discriminator, four images; of so
    few, the gradient, not the peak, is planned too large, as if all of it and all it needs met."""
    torch.manual_seed(0)
    with torch.no_grad():
        live: dict[str, Any] = {"generator": NAT(nat_l()).eval(), "tokenizer": VQGAN(vqgan_f16()).eval()}
    reward = AdversarialReward((3, 256, 256), 1000, AdversarialConfig())
    env = DecodeVectorEnv(4, dtype="float16", steps=2, autoreset=False, reward=reward, **live)
    assert_as_planned(env, AdaNATConfig(minibatch=None, policy=PolicyConfig()), gradient=0.2)


def assert_as_planned(env: DecodeVectorEnv, config: AdaNATConfig, gradient: float = 0.1) -> None:
    """Compare a plan with what is alive, within a tenth; the gradient within another share."""
    planned = memory_plan(env, config)
    before = planned.needs[0].bytes  # networks that were there before anybody looked
    expected = {name: size - before for name, size in planned.phases.items()}
    found = peaks(env, config)
    assert max(expected["rollout"], expected["reward"]) == pytest.approx(found["rollout"], rel=0.1)
    assert expected["gradient"] == pytest.approx(found["gradient"], rel=gradient)


def test_what_does_not_fit_is_refused_with_what_helps() -> None:
    GIB = 2**30
    needs = (
        Need("always", "networks", GIB),
        Need("rollout", "a step", 2 * GIB, "--micro-batch"),
        Need("gradient", "a minibatch", 5 * GIB, "--minibatch"),
        Need("gradient", "activations", GIB),
    )
    planned = Plan(needs)
    assert planned.phases == {"rollout": 3 * GIB, "gradient": 7 * GIB} and planned.peak == 7 * GIB
    planned.refuse_more_than(7 * GIB, "cuda:0")
    with pytest.raises(ValueError, match=r"7\.0 GiB in its gradient, 5\.0 of them for a minibatch; .* 6\.5"):
        planned.refuse_more_than(13 * GIB // 2, "cuda:0")
    with pytest.raises(ValueError, match="--minibatch makes it less"):
        planned.refuse_more_than(GIB, "cuda:0")
    with pytest.raises(ValueError, match="smaller generator"):
        Plan(needs[:1] + needs[3:]).refuse_more_than(GIB, "cuda:0")
    assert all(need.what in planned.table() and need.flag in planned.table() for need in needs)


def test_trainings_are_planned_on_gpus_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainingConfig.of(trajectories=8, reward="classifier", schedule="static-search")
    refuse_too_large(config)
    assert not capsys.readouterr().out
    env = DecodeVectorEnv(8, steps=2, autoreset=False)
    monkeypatch.setattr(plan, "free_bytes", lambda device: 2**20)
    monkeypatch.setattr(type(config.env), "build", lambda self: env)
    with pytest.raises(ValueError, match="free: --"):
        refuse_too_large(config.but(device="cuda"))
    assert "rollout buffer" in capsys.readouterr().out


def test_live_bytes_follow_tensors_until_they_die() -> None:
    with LiveBytes() as memory:
        first = torch.zeros(1000)
        first += 1  # in its own memory
        second = first.double()
        assert memory.bytes == memory.peak == 12_000
        del second
        assert (memory.bytes, memory.peak) == (4_000, 12_000)
        view = first[:10]
        del first
        assert memory.bytes == 4_000, "a view keeps all of it"
        del view
    assert memory.bytes == 0
