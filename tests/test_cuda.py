"""On a GPU everything is what it is on a CPU, but for rounding; and what a GPU lacks is not asked of it.

Convolutions are compared loosely: cuDNN takes them in TF32 unless it is told otherwise.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tiny import TINY
from torch import Tensor
from torch import distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

import natgym  # noqa: F401  (registers the environment)
from agents.adanat.trainer import AdaNATTrainer, train
from agents.distributed import workers
from generators.checkpoints import from_pretrained, load_state, save_state
from generators.conditions import Labels
from generators.decoding import DecodeState, advance, start
from generators.enat import ENAT, enat_digits
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise, Purpose, RecordedNoise, hash_uniform, seeded
from generators.rules import DecodeRules
from generators.schedules import Schedule, as_schedule
from generators.tokenizers import ConvVQ, ConvVQConfig
from generators.training import Trainer, small_recipe, take_ids
from generators.vq import VQTrainer, VQTrainingConfig
from generators.weights import convert
from natgym.env.vector import DecodeVectorEnv
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.runs import read_metrics
from natgym.task import Task
from rounding import GOLDEN, assert_rounded

CUDA = torch.cuda.is_available()
CODES = 2**16


def gpu(test: Any) -> Any:
    return pytest.mark.gpu(pytest.mark.skipif(not CUDA, reason="torch finds no CUDA device")(test))


# What can be told without a GPU.


class NoUint16(TorchDispatchMode):
    """Refuse what GPUs can't do with uint16: to index it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("index", "index_select", "gather", "take") and args[0].dtype == torch.uint16:
            raise NotImplementedError(f'"{name}_cuda" not implemented for UInt16')
        return function(*args, **(kwargs or {}))


def trainer(ids_NL: Tensor, device: str = "cpu", model: str = "nat", **changed: Any) -> Trainer:
    torch.manual_seed(0)
    generator: Any = NAT(nat_digits(width=16, heads=2)) if model == "nat" else ENAT(enat_digits())
    reuse = 0.5 if model == "enat" else 0.0
    settings: Any = dict(updates=4, batch_size=32, warmup=1, ema=0.9, reuse=reuse) | changed
    condition = Labels(torch.arange(len(ids_NL)) % 10, 10).to(device)
    return Trainer(generator.to(device), ids_NL.to(device), condition, small_recipe(**settings))


def stored_tokens(num_images: int = 40) -> Tensor:
    """Token ids as token sets are stored."""
    drawn = torch.randint(128, (num_images, 16), generator=torch.Generator().manual_seed(0))
    return drawn.to(torch.uint16)


def test_stored_tokens_are_widened_before_they_are_indexed() -> None:
    """All 2^16 codes survive."""
    every = torch.arange(CODES).view(-1, 16)
    rows = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
    with NoUint16():
        assert torch.equal(take_ids(every.to(torch.uint16), rows), every[rows])
    wide = every * 2**20
    assert torch.equal(take_ids(wide, rows), wide[rows])


def test_the_mode_refuses_what_a_gpu_does() -> None:
    with NoUint16(), pytest.raises(NotImplementedError, match="index_cuda"):
        stored_tokens()[torch.tensor([0])]


@pytest.mark.parametrize("model", ["nat", "enat"])
def test_a_training_on_stored_tokens_indexes_no_uint16(model: str) -> None:
    with NoUint16():
        found = list(trainer(stored_tokens(), model=model))
    assert found == list(trainer(stored_tokens().long(), model=model))


def test_the_seed_goes_to_the_device_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda.manual_seed seeds the current device, whichever was meant."""
    current, said = [0], []

    @contextlib.contextmanager
    def device(named: torch.device) -> Iterator[None]:
        before, current[0] = current[0], named.index
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: said.append((current[0], seed)))
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    with seeded(7, "cuda:2"):
        pass
    assert said == [(2, 7)] and current == [0]


@pytest.fixture
def ranked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two GPUs, and the second of torchrun's two processes; what is asked of them is listed."""
    asked: list[Any] = []
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: asked.append(index))
    monkeypatch.setattr(dist, "init_process_group", lambda *given, **named: asked.append((*given, named)))
    monkeypatch.setattr(dist, "barrier", lambda: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    return asked


RANKED: list[Any] = [
    ("cpu", [("gloo", {"timeout": workers.PATIENCE})]),
    ("cuda", [1, ("nccl", {"device_id": torch.device("cuda", 1), "timeout": workers.PATIENCE})]),
]


@pytest.mark.parametrize(("device", "expected"), RANKED)
def test_ranks_talk_over_what_their_tensors_are_on(ranked: list[Any], device: str, expected: Any) -> None:
    """A machine with GPUs may train on its CPUs; and a rank takes its GPU before it joins."""
    with workers.process_group(device):
        assert ranked == expected


def test_each_process_has_a_device_of_its_own(ranked: list[Any]) -> None:
    assert workers.own_device("cpu") == torch.device("cpu") and ranked == []
    assert workers.own_device("cuda") == torch.device("cuda:1") and ranked == [1]
    assert workers.own_device("cuda:0") == torch.device("cuda:0") and ranked == [1, 0]
    with pytest.raises(ValueError, match="device cuda:2: GPU 2 is asked for, torch finds 2 here"):
        workers.own_device("cuda:2")


# What needs a GPU.


def both(name: str) -> tuple[Any, Any]:
    """Return a shipped generator on either device."""
    return Task.load(name).generator, Task.load(name, device="cuda").generator


def half_masked(generator: Any, num_rows: int = 64) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    shape = num_rows, generator.num_tokens
    ids_BL = torch.randint(generator.codebook_size, shape, generator=draw)
    return ids_BL.masked_fill(torch.rand(shape, generator=draw) < 0.5, generator.mask_id)


@gpu
@pytest.mark.parametrize("purpose", list(Purpose))
def test_the_noise_is_the_same_to_the_bit(purpose: Purpose) -> None:
    seeds_B = torch.arange(1000) * 2**50 - 2**58
    expected = hash_uniform(seeds_B, 5, 64, purpose)
    assert torch.equal(hash_uniform(seeds_B.cuda(), 5, 64, purpose).cpu(), expected)


@gpu
@pytest.mark.parametrize("name", ["digits", "mnist", "mnist/enat"])
def test_logits_and_features_of_the_shipped_generators(name: str) -> None:
    ours, theirs = both(name)
    ids_BL, condition = half_masked(ours), balanced(ours.conditions(), 64)
    with torch.no_grad():
        expected, found = ours(ids_BL, condition), theirs(ids_BL.cuda(), condition.to("cuda"))
    assert found.features_BLD.device.type == "cuda"
    assert_rounded(found.features_BLD, expected.features_BLD)
    assert_rounded(found.logits_BLV, expected.logits_BLV)


def moved(state: DecodeState, generator: Any, device: str) -> DecodeState:
    """Return a state of a generator that reuses nothing, as this generator sees it."""
    ids_BL, condition = state.ids_BL.to(device), state.condition.to(device)
    with torch.no_grad():
        prediction = generator(ids_BL, condition)
    return dataclasses.replace(state, ids_BL=ids_BL, condition=condition, prediction=prediction)


@gpu
@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_tokens_differ_at_ties_alone(name: str) -> None:
    """Step by step from the same state: the same tokens, but where a uniform meets a bound to 1e-4."""
    ours, theirs = both(name)
    B, T = 256, 4
    schedule = as_schedule("maskgit", T)
    state = start(ours, balanced(ours.conditions(), B), steps=T)
    noise = {device: HashNoise.from_seed(3, B, device) for device in ("cpu", "cuda")}
    apart, drawn = 0, 0
    for step in range(T):
        params = schedule.params(step, B)._replace(guidance_scale=torch.zeros(B, dtype=torch.float64))
        after = advance(ours, state, params, noise["cpu"])
        other = advance(theirs, moved(state, theirs, "cuda"), params, noise["cuda"])
        assert state.prediction is not None and after.drawn_BL is not None and other.drawn_BL is not None
        differs_BL = after.drawn_BL != other.drawn_BL.cpu()
        logits_BLV = state.prediction.logits_BLV / params.sampling_temperature[:, None, None].float()
        bounds_BLV = logits_BLV.softmax(-1).cumsum(-1)
        uniform_BL = hash_uniform(noise["cpu"].row_seeds_B, step, ours.num_tokens, Purpose.TOKEN)
        nearest_BL = (bounds_BLV - uniform_BL[..., None]).abs().amin(-1)
        assert (nearest_BL[differs_BL] < 1e-4).all()
        same_B = ~differs_BL.any(1)
        assert torch.equal(after.masked_B, other.masked_B)
        kept_B = (after.ids_BL == other.ids_BL.cpu()).all(1)
        assert kept_B[same_B].float().mean() > 0.98, "confidences may tie as well"
        apart, drawn = apart + int(differs_BL.sum()), drawn + int((state.ids_BL == ours.mask_id).sum())
        state = after
    assert apart <= 1e-3 * drawn


@gpu
@pytest.mark.parametrize("name", ["digits", "mnist", "mnist/enat"])
def test_whole_pictures_are_the_same_but_for_ties(name: str) -> None:
    drawn = []
    for device in ("cpu", "cuda"):
        task = Task.load(name, device=device)
        generator, tokenizer = task.generator, task.tokenizer
        policy = FixedPolicy(as_schedule("maskgit", 4))
        drawn.append(rollout(policy, generator, tokenizer, balanced(generator.conditions(), 200), seed=0))
    ours, theirs = drawn
    same_N = (ours.tokens_NL == theirs.tokens_NL.cpu()).all(1)
    assert same_N.float().mean() > 0.95 and np.array_equal(ours.nfe_N, theirs.nfe_N)
    apart = (ours.images_NCHW[same_N] - theirs.images_NCHW.cpu()[same_N]).abs().max()
    assert apart < 0.01, "convolutions in TF32"
    assert len(theirs.frame) == len(ours.frame)


@gpu
@pytest.mark.golden
@pytest.mark.parametrize("name", ["nat_tiny", "nat_tiny_noskip"])
def test_recorded_logits_and_features(golden: Any, name: str) -> None:
    tensors, meta = golden(name)
    model: Any = converted(tensors, heads=meta["kwargs"]["num_heads"])
    condition = Labels(tensors["in.context"][:, 0].cuda(), model.config.num_classes)
    with torch.no_grad():
        prediction = model(tensors["in.ids"].cuda(), condition)
    torch.testing.assert_close(prediction.logits_BLV.cpu(), tensors["out.logits"], **GOLDEN)
    torch.testing.assert_close(prediction.features_BLD.cpu(), tensors["out.feat"], **GOLDEN)


def converted(tensors: dict[str, Tensor], **given: Any) -> Any:
    official = {key[3:]: tensor for key, tensor in tensors.items() if key.startswith("sd.")}
    return convert(official, **given).build().to("cuda")


@gpu
@pytest.mark.golden
@pytest.mark.parametrize("name", ["loop_inat", "loop_enat"])
def test_recorded_runs(golden: Any, name: str) -> None:
    """All tokens drawn and all that are masked again, step by step."""
    tensors, meta = golden(name)
    kwargs, floor = meta["kwargs"], 1e-4  # the official caller's, of the sampling temperature
    given = {"decoder_depth": kwargs["enc_dec"][1]} if "enc_dec" in kwargs else {}
    model = converted(tensors, heads=kwargs["num_heads"], **given)
    condition = Labels(tensors["in.context"][:, 0].cuda(), meta["uncond_class"])
    rules = DecodeRules(guidance_floor=0, min_masked=int(name == "loop_inat"))
    for run, facts in meta["runs"].items():
        recorded = {key: tensors[f"run.{run}.{key}"] for key in ("sampled_ids", "ids_after", "final_ids")}
        noise = RecordedNoise()
        if facts["noisy"]:
            raw = (tensors[f"run.{run}.{key}"].cuda() for key in ("cat_noise_x16", "gumbel"))
            categorical, gumbel = raw
            noise = RecordedNoise(categorical / 16, gumbel)
        sampling = [max(value, floor) for value in facts["samp_temp"]]
        columns = facts["mask_ratio"], facts["conf_temp"], sampling, facts["cfg_used"]
        schedule = Schedule(torch.tensor(columns, dtype=torch.float64).T)
        state = start(model, condition, steps=facts["T"])
        for step in range(facts["T"]):
            state = advance(model, state, schedule.params(step, len(condition)), noise, rules)
            assert state.drawn_BL is not None
            assert torch.equal(state.drawn_BL.cpu(), recorded["sampled_ids"][step].long()), (run, step)
            if not state.done:
                assert torch.equal(state.ids_BL.cpu(), recorded["ids_after"][step].long()), (run, step)
        assert torch.equal(state.ids_BL.cpu(), recorded["final_ids"].long()), run


@gpu
@pytest.mark.golden
def test_recorded_codes_and_pictures(golden: Any) -> None:
    tensors, _ = golden("vqgan_tiny")
    rows, columns = tensors["out.pre_quant"].shape[-2:]
    model = converted(tensors, grid=(rows, columns))
    ids_BL = model.encode(tensors["in.image"].cuda())
    assert torch.equal(ids_BL.cpu().flatten(), tensors["out.indices"].long().flatten())
    assert model.decode(ids_BL).device.type == "cuda"


@gpu
def test_the_seeded_generator_is_put_back() -> None:
    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state()
    drawn = []
    for device in ("cuda", "cuda:0"):
        with seeded(5, device):
            drawn.append(torch.rand(4, device="cuda"))
    assert torch.equal(*drawn) and torch.equal(torch.cuda.get_rng_state(), before)


KINDS: list[dict[str, Any]] = [
    {"observation": "features"},
    {"observation": "features", "dtype": "float16", "smoothing": 0.5},
    {"observation": "pooled", "actions": "paper"},
    {"observation": "tokens", "rules": "halton", "conditions": "random"},
    {"observation": "features", "first_pass_bytes": 2**24, "rules": "adanat"},
]


@gpu
@pytest.mark.parametrize("options", KINDS, ids=lambda options: "-".join(map(str, options.values())))
def test_the_environment(options: dict[str, Any]) -> None:
    """Two episodes of numpy actions, then one of tensors on the GPU, against the same on the CPU."""
    T, B = 4, 32
    envs = [DecodeVectorEnv(B, steps=T, device=device, **options) for device in ("cpu", "cuda")]
    actions = np.random.default_rng(0).normal(0, 0.5, (3 * T, B, 4)).astype(np.float32)
    seen = [env.reset(seed=0)[0] for env in envs]
    rewards: list[Any] = [[], []]
    for step in range(3 * T):
        for which, env in enumerate(envs):
            action: Any = actions[step]
            if which and step >= 2 * T:
                action = torch.from_numpy(action).cuda()
            seen[which], reward, ended, _, info = env.step(action)
            rewards[which].append(reward)
            assert all(isinstance(info[name], np.ndarray) for name in ("mask_ratio", "clipped"))
            assert ended.all() == ((step + 1) % T == 0)
            if ended.all():
                assert info["images"].shape[0] == B and isinstance(info["tokens"], np.ndarray)
        assert all(tensor.device.type == "cuda" for tensor in seen[1].values())
        assert seen[0].keys() == seen[1].keys()
    ours, theirs = map(np.array, rewards)
    assert np.isclose(ours, theirs, rtol=1e-2, atol=1e-2).mean() > 0.98, "rows but for ties"


@gpu
def test_the_environment_of_one_image() -> None:
    env = gymnasium.make("natgym/Decode-v1", steps=3, device="cuda", render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        assert all(isinstance(value, np.ndarray) for value in observation.values())
        observation, reward, terminated, _, info = env.step(np.zeros(4, np.float32))
    pixels: Any = env.render()
    assert terminated and math.isfinite(float(reward)) and pixels.dtype == np.uint8
    env.close()


TINY_CUDA = TINY.but({"device": "cuda"})
CONFIGS: dict[str, dict[str, Any]] = {
    "features": {},
    "tokens": {"observation": "tokens"},
    "pooled-smoothed": {"observation": "pooled", "smoothing": 0.5},
    "sum": {"reward": "adversarial=1,influence=0.5"},
    "enat-tokens": {"task": "mnist", "generator": "mnist/enat", "observation": "tokens"},
}


@gpu
@pytest.mark.parametrize("name", CONFIGS)
def test_an_update_of_adanat(name: str, request: pytest.FixtureRequest) -> None:
    if CONFIGS[name].get("task") == "mnist":
        folder = request.getfixturevalue("shared_data")
        request.getfixturevalue("monkeypatch").setenv("NATGYM_DATA", str(folder))
    learner = AdaNATTrainer.of(TINY_CUDA.but(**CONFIGS[name]))
    metrics = learner.update()
    assert all(math.isfinite(metrics[name]) for name in ("reward", "value_loss", "distance"))
    assert {parameter.device.type for parameter in learner.ppo.policy.parameters()} == {"cuda"}


class Stopped(Exception):
    """What a run is stopped by."""


@gpu
def test_a_resumed_training_of_adanat(tmp_path: Path) -> None:
    """Killed after the first update it ends where the uninterrupted run does, but for rounding."""

    def stop(metrics: dict[str, float]) -> None:
        raise Stopped

    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    train(TINY_CUDA, tmp_path / "straight", lambda metrics: None)
    with pytest.raises(Stopped):
        train(TINY_CUDA, tmp_path / "killed", stop)
    train(TINY_CUDA, tmp_path / "killed", lambda metrics: None)
    rows = [read_metrics(tmp_path / name / "metrics.csv") for name in ("straight", "killed")]
    assert [row["update"] for row in rows[0]] == [row["update"] for row in rows[1]]
    weights = [from_pretrained(tmp_path / name / "policy").state_dict() for name in ("straight", "killed")]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=1e-4, rtol=1e-3, msg=key)


@gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["nat", "enat"])
def test_a_training_and_a_resumed_one(tmp_path: Path, model: str, precision: str) -> None:
    settings: Any = {"model": model, "precision": precision}
    straight = trainer(stored_tokens(), "cuda", **settings)
    expected = list(straight)
    first = trainer(stored_tokens(), "cuda", **settings)
    metrics = [first.update() for _ in range(2)]
    save_state(tmp_path / "state.pt", first.state_dict())
    resumed = trainer(stored_tokens(), "cuda", **settings)
    resumed.load_state_dict(load_state(tmp_path / "state.pt"))
    metrics += list(resumed)
    rough = 1e-4 if precision == "float32" else 2e-2
    for row, other in zip(metrics, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=rough)
    steps = [state["step"] for state in resumed.optimizer.state.values()]
    assert all(step.device.type == "cpu" for step in steps), "one on the GPU is waited for at every update"


@gpu
def test_the_first_update_is_that_of_a_cpu() -> None:
    """Without dropout, whose numbers another device draws otherwise."""
    losses = []
    for device in ("cpu", "cuda"):
        run = trainer(stored_tokens(), device)
        for module in run.generator.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        losses.append(run.update()["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@gpu
def test_a_tokenizer_learns() -> None:
    images = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    tokenizer = ConvVQ(ConvVQConfig(image_shape=(1, 8, 8), codebook_size=16, width=16)).to("cuda")
    config = VQTrainingConfig(updates=5, batch_size=32, warmup=1)
    metrics = list(VQTrainer(tokenizer, images, config))
    assert all(math.isfinite(row["squared_error"]) for row in metrics)
    assert tokenizer.encode(images.cuda()).device.type == "cuda"
