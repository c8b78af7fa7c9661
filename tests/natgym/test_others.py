"""Everything of natgym plays on generators of others: schedules, rules, environments, searches, trainings."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import language_model, pipeline
from torch import Tensor

import natgym
from agents import AdaNATConfig, AdaNATTrainer, load_policy
from agents.autonat.config import SearchConfig
from agents.autonat.scorer import RewardScorer
from agents.autonat.search import LOCAL, Search
from generators.checkpoints import save_pretrained
from generators.conditions import Condition, balanced
from generators.decoding import start
from generators.first_pass import FirstPass
from generators.others import amused, masked_lm
from generators.others.words import Words, WordsConfig
from generators.reveal import REVEAL
from generators.schedules import FAMILIES, PARAMETERS, as_schedule
from natgym.names.tasks import Description, write_task
from natgym.policies import POLICY_NAMES, named_policies
from rounding import UNIT_OF_HALF, assert_rounded

pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")
ROOT = Path(__file__).resolve().parents[2]
KINDS = [pytest.param("amused", marks=pytest.mark.slow), "language"]  # diffusers is imported for long
TEXTS = ["a cat", "a dog", "b"]


def make(kind: str, folder: Path) -> natgym.Task:
    """A task of foreign networks, live, that draws from three texts."""
    if kind == "language":
        generator, words = masked_lm.MaskedLM.load(
            language_model(folder)[0], (2, 6), prompts=["a b", "c", "d"]
        )
        return natgym.Task("language", generator=generator, tokenizer=words)
    pytest.importorskip("diffusers", reason="the extra `diffusers` is not installed")
    return natgym.Task("amused", **amused.networks(pipeline(folder / "it")))


def drawn_from(task: natgym.Task) -> Condition:
    return task.named(TEXTS) if task.has("encoder") else task.generator.conditions()


@pytest.fixture(scope="module", params=KINDS)
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> natgym.Task:
    return make(request.param, tmp_path_factory.mktemp(request.param))


def variety(images_BCHW: Tensor, condition: Condition) -> Tensor:
    """How many different pixels an image has."""
    pixels_BN = (
        images_BCHW.mul(255).round().mul(torch.tensor([65536.0, 256, 1])[:, None, None]).sum(1).flatten(1)
    )
    return 1 + (pixels_BN.sort(1).values.diff(dim=1) != 0).float().sum(1)


def test_every_schedule_and_policy_plays(task: natgym.Task) -> None:
    condition = drawn_from(task)
    assert set(FAMILIES) < set(POLICY_NAMES)
    policies = [one for name in POLICY_NAMES for _, one in named_policies(name, [2], task.generator)]
    drawn = [natgym.rollout(policy, task, condition=condition, seed=0) for policy in policies]
    for one in drawn:
        assert int(one.tokens_NL.max()) < task.generator.codebook_size and int(one.tokens_NL.min()) >= 0
        if condition.given_BL is not None:
            known_BL = condition.given_BL >= 0
            assert torch.equal(one.tokens_NL[known_BL], condition.given_BL[known_BL])
    assert len({one.tokens_NL.numpy().tobytes() for one in drawn}) > 5


@pytest.mark.parametrize("rule", REVEAL)
def test_every_rule_plays_and_a_row_is_the_same_alone(task: natgym.Task, rule: str) -> None:
    condition, policy = drawn_from(task), natgym.FixedPolicy(as_schedule("maskgit", 2))
    together = natgym.rollout(policy, task, condition=condition, seed=4, rules=rule)
    alone = natgym.rollout(policy, task, condition=condition[[1]], seed=5, rules=rule)
    assert torch.equal(together.tokens_NL[1], alone.tokens_NL[0]) and together.nfe_N[1] == alone.nfe_N[0]


@pytest.mark.parametrize("observation", ["features", "pooled", "tokens", "statistics"])
def test_environments_show_what_the_generator_sees(task: natgym.Task, observation: str) -> None:
    env = natgym.DecodeVectorEnv(
        3, task=task, steps=2, reward=variety, conditions=drawn_from(task), observation=observation
    )
    generator, condition = task.generator, drawn_from(task)[[2, 0, 1]]
    shown, _ = env.reset(seed=0, options={"condition": condition})
    assert env.observation_space.contains({name: values.numpy() for name, values in shown.items()})
    if observation == "features":
        given_BL = condition.given_BL
        ids_BL = torch.full((3, generator.num_tokens), generator.mask_id)
        ids_BL = ids_BL if given_BL is None else torch.where(given_BL < 0, ids_BL, given_BL)
        with torch.no_grad():
            assert_rounded(shown["features"], generator(ids_BL, condition).features_BLD)
    for _ in range(2):
        _, rewards, *_ = env.step(env.action_space.sample())
    assert (rewards >= 1).all()


def test_a_training_plays_on_it_resumes_and_is_loaded(tmp_path: Path, task: natgym.Task) -> None:
    """With a reward that learns nothing, and without real images."""
    env = natgym.DecodeVectorEnv(8, task=task, steps=2, reward=variety, conditions=drawn_from(task))
    config = AdaNATConfig(updates=2, finalists=1)
    AdaNATTrainer(env, config, callbacks=[lambda trainer, metrics: False]).fit(tmp_path / "run")
    trainer = AdaNATTrainer(env, config)
    trainer.fit(tmp_path / "run")
    assert trainer.done == 2
    policies = trainer.policy(), load_policy(tmp_path / "run", task)
    tokens = [natgym.rollout(one, task, condition=drawn_from(task), seed=0).tokens_NL for one in policies]
    assert torch.equal(*tokens)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(name, marks=() if name == "cma" else pytest.mark.slow)
        for name in ("grid", "paper", *LOCAL)
    ],
)
def test_every_search_plays_on_it(tmp_path: Path, task: natgym.Task, optimizer: Any) -> None:
    scorer = RewardScorer(task, variety, conditions=drawn_from(task))
    # As little as nearly all need for one generation and two finalists.
    budget = {"grid": 330, "paper": 60}.get(optimizer, 40)
    config = SearchConfig(
        budget=budget, images_per_evaluation=2, warm="none", finalists=2, final_images=6, race=2
    )
    search = Search(optimizer, scorer.suited(config), 2, 0, tmp_path / "log.csv")
    best = search.run(scorer)
    measured = min(search.known.values(), key=lambda one: one.distance)
    assert best.steps == 2 and -64 <= measured.distance <= -1


def test_a_search_measures_minus_the_mean_reward_and_a_price(task: natgym.Task, tmp_path: Path) -> None:
    condition = drawn_from(task)
    scorer = RewardScorer(task, variety, conditions=condition, price=0.25)
    config = SearchConfig(
        budget=240, images_per_evaluation=6, warm="none", finalists=2, final_images=6, race=2
    )
    asked = Search("random", config, 2, 0, tmp_path / "log.csv").open()[0]
    policy, condition = natgym.FixedPolicy(asked.schedule), condition[[0, 1, 2] * 2]
    first_pass = FirstPass(task.generator)  # which no image pays for
    drawn = natgym.rollout(policy, task, condition=condition, seed=asked.seed, first_pass=first_pass)
    losses_N = 0.25 * drawn.nfe_N - variety(drawn.images, drawn.condition).double().numpy()
    found = scorer(asked)
    assert found.distance == pytest.approx(losses_N.mean(), rel=1e-12)
    assert found.error == pytest.approx(losses_N.std() / 6**0.5, rel=1e-12)
    comparing = type(
        "Comparing", (), {"needs_batch": True, "__call__": lambda self, *batch: variety(*batch)}
    )()
    with pytest.raises(ValueError, match="the reward compares images"):
        RewardScorer(task, comparing, conditions=condition)


def test_guidance_means_nothing_where_there_is_no_prompt(tmp_path: Path) -> None:
    folder, _ = language_model(tmp_path)
    free, words = masked_lm.MaskedLM.load(folder, (1, 4))
    task = natgym.Task(generator=free, tokenizer=words)
    env = natgym.DecodeVectorEnv(2, task=task, steps=2, reward=variety)
    assert env.action_space.shape == (2, len(PARAMETERS) - 1)
    with pytest.raises(ValueError, match="guidance_scale has nothing to guide by"):
        natgym.DecodeVectorEnv(2, task=task, steps=2, reward=variety, parameters=("guidance_scale",))
    guided, plain = (
        natgym.rollout(natgym.FixedPolicy(as_schedule(f"maskgit:w={w}", 3)), task, num_images=4, seed=0)
        for w in (9, 0)
    )
    assert torch.equal(guided.tokens_NL, plain.tokens_NL) and (guided.nfe_N == plain.nfe_N).all()


@pytest.mark.slow
def test_a_search_and_a_training_get_more_of_a_planted_reward(tmp_path: Path, task: natgym.Task) -> None:
    """Than the schedule that both start from, on fresh noise, by three standard errors."""
    condition = drawn_from(task)
    if not isinstance(task.tokenizer, Words):  # by random weights, all tokens look alike
        generator = task.generator
        legible = WordsConfig(codebook_size=generator.codebook_size, grid=generator.grid, vocabulary="")
        task = task.like(tokenizer=Words(legible))
    scorer = RewardScorer(task, variety, conditions=condition)
    config = SearchConfig(budget=6000, images_per_evaluation=60)
    search = Search("cma", scorer.suited(config), 3, 0, tmp_path / "log.csv")
    env = natgym.DecodeVectorEnv(128, task=task, steps=3, reward=variety, conditions=condition)
    trainer = AdaNATTrainer(env, AdaNATConfig(updates=40, finalists=1))
    trainer.fit(tmp_path / "run")
    policies = {
        "reference": natgym.FixedPolicy(as_schedule("reference", 3)),
        "searched": natgym.FixedPolicy(search.run(scorer)),
        "learned": trainer.policy(),
    }
    drawn_of = balanced(condition, 600)
    rewards = {
        name: variety(natgym.rollout(one, task, condition=drawn_of, seed=77).images, drawn_of)
        for name, one in policies.items()
    }
    told = {name: (float(one.mean()), float(one.std() / len(one) ** 0.5)) for name, one in rewards.items()}
    print(task, told)
    for name in ("searched", "learned"):
        more_N = rewards[name] - rewards["reference"]
        assert more_N.mean() > 3 * more_N.std() / len(more_N) ** 0.5, told


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["amused", "language"])
def test_another_process_draws_the_same(tmp_path: Path, kind: str) -> None:
    """As Ray's workers do, who get a live task as bytes."""
    task = make(kind, tmp_path / "its")
    (tmp_path / "task.pkl").write_bytes(pickle.dumps((task, drawn_from(task))))
    program = (
        "import pickle, sys, torch, natgym; from generators.schedules import as_schedule\n"
        "torch.set_num_threads(1); task, condition = pickle.load(open('task.pkl', 'rb'))\n"
        "policy = natgym.FixedPolicy(as_schedule('maskgit', 3))\n"
        "print(natgym.rollout(policy, task, condition=condition, seed=0).tokens_NL.tolist())"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    policy = natgym.FixedPolicy(as_schedule("maskgit", 3))
    here = natgym.rollout(policy, task, condition=drawn_from(task), seed=0).tokens_NL
    assert json.loads(done.stdout) == here.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pipeline_of_the_library_calls_its_networks_with_the_same(tmp_path: Path) -> None:
    """Its own AmusedPipeline: texts, sizes, masks and guidance of a first step, and images of tokens."""
    pipelines = pytest.importorskip("diffusers", reason="the extra `diffusers` is not installed")
    task = make("amused", tmp_path / "its")
    folder = tmp_path / "its" / "it"
    index: dict[str, Any] = {"_class_name": "AmusedPipeline", "_diffusers_version": pipelines.__version__}
    index |= {"transformer": ["diffusers", "UVit2DModel"], "vqvae": ["diffusers", "VQModel"]}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "AmusedScheduler"]}
    index |= {"text_encoder": ["transformers", "CLIPTextModelWithProjection"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    pipe = pipelines.AmusedPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    passes = []
    pipe.transformer.register_forward_hook(lambda *call: passes.append(call[-1]))
    images = pipe(TEXTS, num_inference_steps=1, guidance_scale=4.0, output_type="latent").images
    free_BVHW, asked_BVHW = passes[0].chunk(2)
    state = start(task.generator, condition := task.named(TEXTS), steps=1)
    assert state.prediction is not None
    size = float(asked_BVHW.abs().max())
    half = {"unit": UNIT_OF_HALF, "size": size}  # in which texts are kept
    assert_rounded(state.prediction.logits_BLV, asked_BVHW.flatten(2).mT, **half)
    with torch.no_grad():
        free = task.generator(state.ids_BL, condition.null())
    assert_rounded(free.logits_BLV, free_BVHW.flatten(2).mT, **half)
    tokens_BL = images.flatten(1)
    pixels_BHWC = pipe(
        TEXTS, num_inference_steps=1, latents=images, guidance_scale=0, output_type="np"
    ).images
    assert_rounded(task.tokenizer.decode(tokens_BL), torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2))


def test_a_folder_of_them_is_a_task(tmp_path: Path) -> None:
    """Networks without real images: trained and searched on by name, and sent to other processes so."""
    live = make("language", tmp_path / "its")
    folder = tmp_path / "letters"
    folder.mkdir()
    write_task(folder, Description(data="none"))
    save_pretrained(live.generator, folder / "nat")  # type: ignore[arg-type]
    save_pretrained(live.tokenizer, folder / "tokenizer")  # type: ignore[arg-type]
    task = natgym.Task.load(str(folder))
    policy = natgym.FixedPolicy(as_schedule("maskgit", 3))
    tokens = [
        natgym.rollout(policy, one, num_images=5, seed=0).tokens_NL
        for one in (live, task, pickle.loads(pickle.dumps(task)), pickle.loads(pickle.dumps(live)))
    ]
    assert all(torch.equal(tokens[0], others) for others in tokens)
