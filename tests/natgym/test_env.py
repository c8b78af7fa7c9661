"""The environment: contracts of Gymnasium, rows that don't know each other, zero action as the reference."""

import copy
import gc
import re
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common import env_checker
from torch import Tensor, nn

import natgym  # noqa: F401  (registers the environment)
from generators.conditions import Condition, Labels
from generators.contract import Prediction
from generators.decoding import advance, start
from generators.enat import ENAT, enat_digits
from generators.noise import HashNoise, next_episode
from generators.rules import DecodeRules
from generators.schedules import FAMILIES, PARAMETERS, DecodeParams, reference
from natgym.env.single import DecodeEnv
from natgym.env.vector import DecodeVectorEnv
from natgym.observations import pool, pooled_grid
from natgym.policies import FixedPolicy
from natgym.rewards import AdversarialConfig, AdversarialReward, ClassifierReward
from natgym.rollouts import rollout
from natgym.spaces import ActionMap
from rounding import UNIT_OF_HALF, assert_rounded

N, T = 4, 4


def vector(num_envs: int = N, **arguments: Any) -> DecodeVectorEnv:
    env = gymnasium.make_vec("natgym/Decode-v1", num_envs=num_envs, **({"steps": T} | arguments))
    assert isinstance(env, DecodeVectorEnv)
    return env


def single(**arguments: Any) -> DecodeEnv:
    env = gymnasium.make("natgym/Decode-v1", **({"steps": T} | arguments)).unwrapped
    assert isinstance(env, DecodeEnv)
    return env


def some_actions(steps: int = T, rows: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, rows, 4)).astype(np.float32)


def play(env: Any, actions_TB4: np.ndarray, **reset: Any) -> list[Any]:
    """Return the first observation and then what each step returned."""
    return [env.reset(**reset)[0], *(env.step(actions) for actions in actions_TB4)]


def sum_of_pixels(images_BCHW: Tensor, condition: Condition) -> Tensor:
    return images_BCHW.sum((1, 2, 3))


class Flat(nn.Module):
    """A generator that finds every code equally likely: for tests of everything but the images."""

    codebook_size = mask_id = 128
    grid, num_tokens, width = (4, 4), 16, 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, ids_BL: Tensor, condition: Condition, cache: Any = None) -> Prediction:
        return Prediction(torch.zeros(*ids_BL.shape, 128), torch.zeros(*ids_BL.shape, 2))

    def conditions(self) -> Condition:
        return Labels.every(10)


# What the two checkers still say, and why it stays.
REMAINING = {
    "observation space minimum value is -infinity": "features have no bounds",
    "observation space maximum value is infinity": "features have no bounds",
    "we recommend using a symmetric and normalized space": "actions are pre-activations around zero",
    "recommend you to use a symmetric and normalized Box action space": "the same, in SB3's words",
    "features has an unconventional shape": "token features are (L, D); AdaNAT's extractor takes them so",
}


def enat() -> ENAT:
    """An ENAT of the digits' geometry whose weights are as if trained."""
    torch.manual_seed(0)
    network = ENAT(enat_digits()).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
    return network


def on_enat(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments on an ENAT; a live generator has no task, and with it no rewards by name."""
    return arguments | {"generator": enat(), "tokenizer": "digits", "reward": sum_of_pixels}


# Everything that a researcher may choose, on both kinds of generators.
OPTIONS: list[dict[str, Any]] = [
    {"parameters": ("mask_ratio",)},
    {"parameters": ("remask_temperature", "guidance_scale"), "smoothing": 0.8},
    {"observation": "pooled", "dtype": "float16"},
    {"observation": "tokens"},
    {"first_pass_bytes": 2**20},
    {"reward": {"classifier": 1.0, "feature-distance": 0.5}},
]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"render_mode": "rgb_array"},
        {"reward": sum_of_pixels},
        {"reward": "feature-distance"},
        {"reward": AdversarialReward((1, 8, 8), 10, AdversarialConfig(channels=4))},
        *OPTIONS,
        *(on_enat(options) for options in OPTIONS),
        {"rules": "confidence,min_reveal=0"},
        {"dtype": "float16"},
        {"actions": "paper"},
        {"actions": "paper-no-residual"},
        {"conditions": "random"},
        {"conditions": Labels(torch.tensor([3, 1]), 10)},
        {"steps": 1, "schedule": "maskgit"},
    ],
    ids=lambda arguments: ",".join(arguments) or "default",
)
def test_checkers_pass_and_say_nothing_new(arguments: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(single(**arguments))
        env_checker.check_env(single(**arguments))
    messages = [str(warning.message) for warning in caught]
    assert not [message for message in messages if not any(known in message for known in REMAINING)]
    assert all(any(known in message for message in messages) for known in REMAINING), "a reason is obsolete"


def test_a_vector_env_is_made_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vector(render_mode="rgb_array")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        on_enat({"smoothing": 0.5}),
        *OPTIONS,
        {"conditions": "random", "rules": "min_reveal=0"},
        {"actions": "paper", "dtype": "float16"},
        {"conditions": Labels(torch.tensor([3, 1, 8]), 10), "actions": "paper-no-residual"},
    ],
    ids=lambda arguments: ",".join(arguments) or "default",
)
def test_row_i_is_the_one_image_env_with_seed_s_plus_i(arguments: dict[str, Any]) -> None:
    rows = vector(autoreset=False, **arguments)
    actions = some_actions()[..., : rows.single_action_space.shape[0]]
    alone = [single(**arguments) for _ in range(N)]
    observation, _ = rows.reset(seed=7)
    singly = [env.reset(seed=7 + i) for i, env in enumerate(alone)]
    for step in range(T + 1):
        for i, env in enumerate(alone):
            assert torch.equal(rows.state.ids_BL[i], env.rows.state.ids_BL[0]), (step, i)
            features = observation["features"][i].numpy()
            half = features.dtype == np.float16
            rounding = {"unit": UNIT_OF_HALF, "roundings": 2} if half else {}
            assert_rounded(features, singly[i][0]["features"], **rounding)
            assert observation.keys() == singly[i][0].keys()
            for key in observation.keys() - {"features"}:
                np.testing.assert_array_equal(observation[key][i].numpy(), singly[i][0][key])
            assert singly[i][0]["features"].dtype == features.dtype
        if step == T:
            break
        observation, rewards, terminated, truncated, info = rows.step(actions[step])
        singly = [env.step(action) for env, action in zip(alone, actions[step], strict=True)]
        for i, (_, reward, ended, cut, details) in enumerate(singly):
            assert (ended, cut) == (terminated[i], truncated[i])
            assert reward == pytest.approx(rewards[i], abs=1e-4)
            assert {*details, *(f"_{key}" for key in details)} == info.keys()
            for key in details:
                assert_rounded(details[key], np.asarray(info[key][i]))


@pytest.mark.parametrize("arguments", [{}, on_enat({})], ids=["nat", "enat"])
def test_permuted_rows_draw_the_same_pictures(arguments: dict[str, Any]) -> None:
    """The physics on permuted seeds, conditions and actions give the env's rows, permuted."""
    actions, order = torch.from_numpy(some_actions()), torch.tensor([2, 0, 3, 1])
    env = vector(autoreset=False, **arguments)
    env.reset(seed=7)
    condition = env.state.condition[order]
    state = start(env.generator, condition, steps=T)
    for step in range(T):
        observation, *_ = env.step(actions[step])
        params = env.action_map(actions[step][order], step)
        state = advance(env.generator, state, params, HashNoise(7 + order))
        assert torch.equal(state.ids_BL, env.state.ids_BL[order])
        if not state.done:
            features = state.prediction.features_BLD
            assert_rounded(features, observation["features"][order])


def tokens(env: DecodeVectorEnv | DecodeEnv, **reset: Any) -> list[Any]:
    """The tokens that the same actions lead to."""
    actions = some_actions() if isinstance(env, DecodeVectorEnv) else some_actions()[:, 0]
    return play(env, actions, **reset)[-1][-1]["tokens"].tolist()


@pytest.mark.parametrize("make", [vector, single])
def test_an_episode_is_a_function_of_its_seed(make: Callable[[], Any]) -> None:
    env = make()
    first = tokens(env, seed=3)
    assert tokens(env, seed=4) != first
    assert tokens(env, seed=3) == tokens(make(), seed=3) == first
    assert tokens(env, seed=2**64 + 3) == first, "seeds of any size are taken, modulo 2^64"


@pytest.mark.parametrize("make", [vector, single])
def test_without_a_seed_episodes_differ_but_follow_from_the_first(make: Callable[[], Any]) -> None:
    def episodes(env: Any) -> list[Any]:
        return [tokens(env, seed=5), tokens(env), tokens(env)]

    first, second, third = episodes(env := make())
    assert first != second != third != first
    assert episodes(make()) == episodes(env) == [first, second, third]
    assert tokens(make()) != tokens(make()), "nobody gave a seed at all"


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_action_plays_the_schedule_for_any_number_of_steps(family: str, digits: Any) -> None:
    for steps in (*range(1, 17), 32, 64) if family == "reference" else (1, 2, 8, 11):
        env = vector(
            1,
            steps=steps,
            schedule=family,
            generator=Flat(),
            tokenizer=digits.tokenizer,
            reward=sum_of_pixels,
        )
        table_T4 = FAMILIES[family](steps).table_T4.numpy()
        _, *played = play(env, np.zeros((steps, 1, 4)), seed=0)
        for row_4, (*_, info) in zip(table_T4, played, strict=True):
            assert [float(info[name][0]) for name in PARAMETERS] == row_4.tolist(), steps


@pytest.mark.parametrize("steps", [1, 4, 16])
@pytest.mark.parametrize("actions", ["default", "paper"])
def test_zero_action_draws_what_the_fixed_policy_draws(steps: int, actions: str, digits: Any) -> None:
    env = vector(12, steps=steps, actions=actions, autoreset=False)
    *_, (*_, info) = play(env, np.zeros((steps, 12, 4)), seed=9)
    condition = Labels((9 + torch.arange(12)) % 10, 10)
    drawn = rollout(FixedPolicy(reference(steps)), digits.generator, digits.tokenizer, condition, seed=9)
    np.testing.assert_array_equal(info["tokens"], drawn.tokens_NL)
    np.testing.assert_array_equal(info["images"], drawn.images_NCHW)
    assert info["nfe"].tolist() == drawn.nfe_N.tolist()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("autoreset", [True, False])
def test_the_reward_comes_with_the_end(steps: int, autoreset: bool, digits: Any) -> None:
    env = vector(steps=steps, autoreset=autoreset)
    _, *played = play(env, some_actions(steps), seed=8)
    for step, (_, rewards, terminated, truncated, info) in enumerate(played):
        last = step + 1 == steps
        assert terminated.tolist() == [last] * N and truncated.tolist() == [False] * N
        assert all(key in info for key in PARAMETERS)
        assert all((key in info) == last for key in ("tokens", "images", "nfe"))
        if not last:
            assert rewards.tolist() == [0.0] * N
    for i in range(N):  # row seed 8 + i draws class 8 + i, from 10 on again 0
        image = digits.tokenizer.decode(torch.from_numpy(info["tokens"][i : i + 1]))
        np.testing.assert_allclose(info["images"][i : i + 1], image)
        expected = digits.reward_extractor(image)[1].softmax(-1)[0, (8 + i) % 10].log()
        assert rewards[i] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_observations_belong_to_the_tokens_of_their_step(dtype: str, digits: Any) -> None:
    env = vector(dtype=dtype)
    observation, _ = env.reset(seed=0)
    for step in range(2 * T):  # across the autoreset
        state = env.state
        assert observation["step"].tolist() == [[step % T]] * N
        assert torch.equal(observation["masked"], (state.ids_BL == 128).to(torch.uint8))
        assert observation["masked"].sum(1).tolist() == state.masked_B.tolist()
        features = digits.generator(state.ids_BL, state.condition).features_BLD
        assert observation["features"].dtype == getattr(torch, dtype)
        torch.testing.assert_close(observation["features"], features.to(getattr(torch, dtype)))
        observation, *_ = env.step(some_actions(2 * T)[step])


def test_no_features_are_made_up_after_the_end() -> None:
    *_, (observation, *_) = play(vector(autoreset=False), some_actions(), seed=0)
    assert observation["features"].shape == (N, 16, 64) and not observation["features"].any()
    assert not observation["masked"].any() and observation["step"].tolist() == [[T]] * N


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("step", [0, T - 1])
def test_one_number_of_an_action_moves_one_parameter_of_one_row(step: int, column: int) -> None:
    row, env = 2, vector(autoreset=False)
    plain, moved = some_actions(), some_actions()
    moved[step, row, column] += 1.5
    before, after = play(env, plain, seed=0), play(env, moved, seed=0)
    for at in range(1, T + 1):
        changed = {
            (name, i)
            for name in PARAMETERS
            for i in range(N)
            if before[at][-1][name][i] != after[at][-1][name][i]
        }
        assert changed == ({(PARAMETERS[column], row)} if at == step + 1 else set())
    others = [i for i in range(N) if i != row]
    for (one, *_), (two, *_) in zip(before[1:], after[1:], strict=True):
        assert torch.equal(one["masked"][others], two["masked"][others])
        torch.testing.assert_close(one["features"][others], two["features"][others])
    np.testing.assert_array_equal(before[-1][-1]["tokens"][others], after[-1][-1]["tokens"][others])


def test_the_parameters_in_info_are_those_that_were_played(digits: Any) -> None:
    env, actions = vector(autoreset=False, rules="min_reveal=0"), some_actions()
    env.reset(seed=0)
    state, rules = env.state, DecodeRules(min_reveal=0)
    for step in range(T):
        *_, info = env.step(actions[step])
        params = DecodeParams(*(torch.from_numpy(info[name]) for name in PARAMETERS))
        masked_B = rules.mask_counts(params.mask_ratio, state.masked_B, 16)
        assert env.state.masked_B.tolist() == (masked_B.tolist() if step + 1 < T else [0] * N)
        state = advance(digits.generator, state, params, HashNoise(torch.arange(N)), rules)
        assert torch.equal(state.ids_BL, env.state.ids_BL)


@pytest.mark.parametrize(
    ("min_reveal", "masked"), [(0, [15, 15, 15, 0]), (1, [15, 14, 13, 0]), (3, [13, 10, 7, 0])]
)
def test_min_reveal_is_kept_whatever_the_action_asks(min_reveal: int, masked: list[int]) -> None:
    env = vector(autoreset=False, rules=DecodeRules(min_reveal=min_reveal), actions="paper")
    actions = np.zeros((T, N, 4))
    actions[..., 0] = 10  # almost everything stays masked
    _, *played = play(env, actions, seed=0)
    assert [observation["masked"].sum(1).tolist() for observation, *_ in played] == [[m] * N for m in masked]


def test_autoreset_starts_the_next_pictures_at_once(digits: Any) -> None:
    env, actions = vector(), some_actions()
    pictures = []
    observation, _ = env.reset(seed=8)
    for episode in range(5):
        assert observation["masked"].all() and not observation["step"].any()
        condition = Labels((8 + N * episode + torch.arange(N)) % 10, 10)
        assert env.state.condition.names == condition.names, "conditions go on where they stopped"
        everything_masked = torch.full((N, 16), 128)
        features = digits.generator(everything_masked, condition).features_BLD
        torch.testing.assert_close(observation["features"], features)
        noise = HashNoise(next_episode(8 + torch.arange(N), episode))
        state = start(digits.generator, condition, steps=T)
        for step in range(T):
            observation, rewards, terminated, _, info = env.step(actions[step])
            state = advance(
                digits.generator, state, env.action_map(torch.from_numpy(actions[step]), step), noise
            )
        assert terminated.all() and info["tokens"].tolist() == state.ids_BL.tolist()
        expected = digits.reward_extractor(env.images)[1].log_softmax(-1)[range(N), condition.ids_B]
        assert_rounded(rewards, expected)
        pictures.append(info["tokens"].tolist())
    assert all(one != two for i, one in enumerate(pictures) for two in pictures[:i])
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_without_autoreset_the_caller_resets() -> None:
    for env in (vector(autoreset=False), single()):
        actions = np.zeros(env.action_space.shape)
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(actions)
        env.reset(seed=0)
        for _ in range(T):
            env.step(actions)
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(actions)
        env.reset()
        env.step(actions)
        env.close()
        with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="make a new one"):
            env.step(actions)
    assert vector(autoreset=False).metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert DecodeVectorEnv.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_balanced_conditions_are_balanced_over_episodes() -> None:
    env, seen = vector(steps=1), []
    env.reset(seed=3)
    for _ in range(5):
        seen += env.state.condition.ids_B.tolist()
        env.step(np.zeros((N, 4)))
    assert seen == [(3 + i) % 10 for i in range(20)]


@pytest.mark.parametrize("conditions", ["balanced", "random"])
def test_rows_of_a_group_differ_by_their_actions_alone(conditions: Any) -> None:
    """Row i has noise and condition of row i // 4 of an environment without groups, in every episode."""
    options: dict[str, Any] = {"steps": 2, "conditions": conditions}
    grouped, alone = (DecodeVectorEnv(12, group=4, **options), DecodeVectorEnv(3, **options))
    actions = np.zeros((3, 4), np.float32)
    moved = np.repeat(actions, 4, axis=0)
    moved[1, 2] = 2.0
    for seed in (5, None):
        grouped.reset(seed=seed), alone.reset(seed=seed)
        for _ in range(2):
            *_, ours = grouped.step(moved)
            *_, theirs = alone.step(actions)
        expected = np.repeat(theirs["tokens"], 4, axis=0)
        same = (ours["tokens"] == expected).all(1)
        assert same[[0, *range(2, 12)]].all() and not same[1]
    assert grouped.like().group == 4 and grouped.like(group=1).group == 1
    for wrong in (5, 0):
        with pytest.raises(ValueError, match=f"group {wrong}"):
            DecodeVectorEnv(12, group=wrong, **options)


def test_coupled_draws_are_another_draw_of_the_same_images() -> None:
    """Other tokens; a small change of the sampling temperature moves fewer of them."""
    moved = {}
    for coupled in (False, True):
        env = DecodeVectorEnv(200, group=2, coupled=coupled, steps=1, parameters=("sampling_temperature",))
        env.reset(seed=3)
        *_, info = env.step(np.tile([[0.0], [0.2]], (100, 1)).astype(np.float32))
        pairs = info["tokens"].reshape(100, 2, -1)
        moved[coupled] = (pairs[:, 0] != pairs[:, 1]).mean()
    assert 0 < moved[True] < 0.7 * moved[False]


def test_random_conditions_are_uniform_and_new_in_each_episode() -> None:
    env = vector(
        4000, steps=1, conditions="random", generator=Flat(), tokenizer="digits", reward=sum_of_pixels
    )
    env.reset(seed=0)
    first = env.state.condition.ids_B
    env.step(np.zeros((4000, 4)))
    second = env.state.condition.ids_B
    joint = torch.bincount(10 * first + second, minlength=100)
    assert ((joint - 40) ** 2 / 40).sum() < 149, "chi-square of 99 degrees of freedom, p = 0.001"


def test_conditions_may_be_chosen_for_one_episode(digits: Any) -> None:
    env, chosen = vector(), Labels(torch.tensor([7, 7, 0, 1]), 10)
    *_, (_, rewards, *_, first) = play(env, some_actions(), seed=0, options={"condition": chosen})
    expected = digits.reward_extractor(torch.from_numpy(first["images"]))[1].log_softmax(-1)[
        range(N), chosen.ids_B
    ]
    assert_rounded(rewards, expected)
    again = play(env, some_actions(), seed=0)[-1][-1]
    assert first["tokens"].tolist() != again["tokens"].tolist()
    env.reset(seed=0, options={"condition": chosen})
    assert env.state.condition.names == chosen.names
    play(env, some_actions(), seed=0, options={"condition": chosen})
    assert env.state.condition.names == ["4", "5", "6", "7"], "the next episode is the sampler's again"
    env.reset(seed=0, options={"condition": ["7", "7", "0", "1"]})
    assert env.state.condition.values.tolist() == chosen.values.tolist(), "by name"
    for wrong, said in (
        (["7", "7", "0", "owl"], "label 'owl' is not one of 0, 1, 2"),
        (3, "is a int; give names"),
    ):
        with pytest.raises(ValueError, match=said):
            env.reset(seed=0, options={"condition": wrong})
    alone = single()
    alone.reset(seed=0, options={"condition": chosen[2:3]})
    assert alone.rows.state.condition.names == ["0"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_envs": 0}, "num_envs 0"),
        ({"generator": "nonsense"}, "'nonsense' is neither"),
        ({"generator": "digits/tokenizer"}, "not a generator"),
        ({"generator": Flat()}, "`tokenizer=`"),
        ({"generator": Flat(), "tokenizer": "digits"}, "a generator without a task has no reward_extractor"),
        ({"tokenizer": "nonsense"}, "'nonsense' is neither"),
        ({"tokenizer": "digits/nat"}, "not a tokenizer"),
        ({"reward": "nonsense"}, "reward 'nonsense'"),
        ({"schedule": "nonsense"}, "schedule 'nonsense'"),
        ({"schedule": reference(3)}, "has 3 steps, not the 4"),
        ({"actions": "nonsense"}, "preset 'nonsense' is not one of default, paper"),
        ({"actions": ActionMap.preset("default", reference(5))}, "has 5 steps, not the 4"),
        ({"conditions": "nonsense"}, "conditions 'nonsense' is not one of balanced, random"),
        ({"render_mode": "human"}, "render_mode 'human' is not one of None, rgb_array"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16' is not one of float32, float16"),
        ({"observation": "nonsense"}, "observation 'nonsense' is not one of features, pooled, tokens"),
        ({"parameters": ()}, "parameters () are not one or more of ('mask_ratio'"),
        ({"parameters": ("nonsense",)}, "parameters ('nonsense',) are not"),
        ({"parameters": ("guidance_scale", "mask_ratio")}, "in this order"),
        ({"smoothing": 1.0}, "smoothing 1.0: it must be in [0, 1)"),
        ({"smoothing": -0.1}, "smoothing -0.1"),
        ({"actions": ActionMap.preset("default", reference(4)), "smoothing": 0.5}, "has its own"),
        ({"first_pass_bytes": -1}, "max_bytes -1"),
        (
            {"reward": {"nonsense": 1.0}},
            "reward 'nonsense' is not one of adversarial, caption, classifier, feature-distance",
        ),
        ({"reward": {}}, "no rewards"),
        ({"steps": 0}, "steps 0"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        vector(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (np.zeros((N, 3)), "shape (4, 3); expected (4, 4)"),
        (np.zeros((N + 1, 4)), "shape (5, 4); expected (4, 4)"),
        (np.zeros(4), "shape (4,); expected (4, 4)"),
        (np.full((N, 4), np.nan), "finite"),
        (np.full((N, 4), np.inf), "finite"),
    ],
)
def test_a_wrong_action_is_told_in_one_line_and_changes_nothing(actions: np.ndarray, said: str) -> None:
    env = vector()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        env.step(actions)
    assert "\n" not in str(caught.value)
    rest = [env.step(actions) for actions in some_actions()]
    assert rest[-1][-1]["tokens"].tolist() == tokens(vector(), seed=0)


@pytest.mark.parametrize("length", [1, N + 1])
def test_a_wrong_number_of_conditions_is_refused(length: int) -> None:
    condition = Labels(torch.zeros(length, dtype=torch.long), 10)
    with pytest.raises(ValueError, match=f"{length} conditions for {N} rows"):
        vector().reset(seed=0, options={"condition": condition})


def test_actions_may_be_torch_and_carry_a_gradient() -> None:
    plain, env = tokens(vector(), seed=0), vector()
    played = play(env, [torch.tensor(actions, requires_grad=True) for actions in some_actions()], seed=0)
    assert played[-1][-1]["tokens"].tolist() == plain


def test_render_shows_revealed_patches_and_one_color_where_masked(digits: Any) -> None:
    env = vector(render_mode="rgb_array")
    env.reset(seed=0)
    pictures = env.render()
    assert len(pictures) == N
    hidden = pictures[0][0, 0]
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.shape == (96, 96, 3)
        assert (picture == hidden).all(), "everything is masked at the start"
    for actions in some_actions()[:-1]:
        env.step(actions)
        for picture, ids in zip(env.render(), env.state.ids_BL.tolist(), strict=True):
            for token, id in enumerate(ids):
                row, column = divmod(token, 4)
                patch = picture[24 * row : 24 * row + 24, 24 * column : 24 * column + 24]
                if id == 128:
                    assert (patch == hidden).all()
                else:  # a code is 2x2 pixels, each drawn 12 x 12
                    pixels = digits.tokenizer.centers[id].clamp(0, 1).mul(255).round().reshape(2, 2).numpy()
                    assert (patch == np.kron(pixels, np.ones((12, 12)))[..., None]).all()


def test_render_shows_the_finished_pictures_until_the_next_step_or_reset() -> None:
    env = vector(render_mode="rgb_array")
    *_, (*_, info) = play(env, some_actions(), seed=0)
    finished = (info["images"][:, 0] * 255).round()
    for picture, expected in zip(env.render(), finished, strict=True):
        assert (picture == np.kron(expected, np.ones((12, 12)))[..., None]).all()
    env.step(some_actions()[0])
    assert not (env.render()[0] == np.kron(finished[0], np.ones((12, 12)))[..., None]).all()
    alone = single(render_mode="rgb_array")
    play(alone, some_actions()[:, 0], seed=0)
    assert len(np.unique(alone.render().reshape(-1, 3), axis=0)) > 1
    alone.reset()
    assert len(np.unique(alone.render().reshape(-1, 3), axis=0)) == 1, "a new image, not the old one"
    for env in (vector(), single()):
        env.reset(seed=0)
        assert env.render() is None


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_spaces_hold_what_the_env_returns_and_takes(dtype: str) -> None:
    env, alone = vector(dtype=dtype), single(dtype=dtype)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(T):
        assert env.observation_space.contains({key: value.numpy() for key, value in observation.items()})
        for i in range(N):
            assert env.single_observation_space.contains({k: v[i].numpy() for k, v in observation.items()})
        actions = env.action_space.sample()
        assert actions.shape == (N, 4) and env.single_action_space.contains(actions[0])
        observation, *_ = env.step(actions)
    assert alone.observation_space == env.single_observation_space
    assert alone.action_space == env.single_action_space
    assert alone.observation_space.contains(alone.reset(seed=0)[0])


def test_spaces_of_many_rows_are_views() -> None:
    space = vector(4096, generator=Flat(), tokenizer="digits", reward=sum_of_pixels).observation_space
    assert space["features"].shape == (4096, 16, 2)
    assert space["features"].low.strides[0] == space["features"].high.strides[0] == 0


def test_an_observation_is_the_callers_to_keep() -> None:
    actions = some_actions()
    untouched, env = play(vector(), actions, seed=0)[1:], vector()
    observation, _ = env.reset(seed=0)
    seen = []
    for step, (expected, *_) in enumerate(untouched):
        for tensor in observation.values():
            tensor.fill_(77)
        seen.append(observation)
        observation, *_ = env.step(actions[step])
        for key, tensor in observation.items():
            torch.testing.assert_close(tensor, expected[key])
            assert all((old[key] == 77).all() for old in seen)
    observation["features"].fill_(77)
    assert not (env.state.prediction.features_BLD == 77).any(), "the env keeps its own"
    *_, (observation, *_) = play(vector(autoreset=False), actions, seed=0)
    observation["features"][0].fill_(77)
    assert not observation["features"][1].any()


@pytest.mark.parametrize("preset", ["default", "paper", "paper-no-residual"])
@pytest.mark.parametrize(
    "chosen", [("mask_ratio",), ("remask_temperature", "guidance_scale"), PARAMETERS[1:]]
)
def test_parameters_that_no_action_sets_follow_the_schedule(chosen: tuple[str, ...], preset: Any) -> None:
    env, whole = vector(parameters=chosen, actions=preset), vector(actions=preset)
    at = [PARAMETERS.index(name) for name in chosen]
    assert env.single_action_space.shape == (len(chosen),) and env.action_space.shape == (N, len(chosen))
    actions = some_actions()
    _, *played = play(env, actions[..., at], seed=0)
    _, *all_four = play(whole, actions, seed=0)
    for step, ((*_, info), (*_, expected)) in enumerate(zip(played, all_four, strict=True)):
        for column, name in enumerate(PARAMETERS):
            if name in chosen:
                assert info[name].tolist() == expected[name].tolist()
            else:
                assert info[name].tolist() == [reference(T).table_T4[step, column].item()] * N


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_smoothing_is_adagens(preset: Any) -> None:
    """AdaGen filters action plus schedule, the schedule filtered inversely beforehand; here row by row."""
    share, actions, schedule = 0.8, some_actions(), FAMILIES["maskgit"](T)
    env = vector(smoothing=share, actions=preset, schedule=schedule)
    _, *played = play(env, actions, seed=0)
    kind = ActionMap.preset(preset, schedule)
    for row in range(N):
        smoothed, before = [0.0] * 4, [0.0] * 4
        for step in range(T):
            for column, activation in enumerate(kind.activations):
                floor = 1e-2 if preset == "default" else 1e-6
                value = schedule.table_T4[step, column].clamp_min(floor)
                if column == 0:
                    value = value.clamp_max(1 - 1e-6)
                h = activation.inverse(value).item() / kind.scale[column]
                compensated = h if step == 0 else (h - share * before[column]) / (1 - share)
                given = float(actions[step, row, column]) + compensated
                smoothed[column] = given if step == 0 else share * smoothed[column] + (1 - share) * given
                before[column] = h
                expected = activation.forward(torch.tensor(smoothed[column] * kind.scale[column]).double())
                found = played[step][-1][PARAMETERS[column]][row]
                assert found == pytest.approx(expected.item(), rel=1e-5)


def test_the_action_played_before_is_observed() -> None:
    env, actions, expected = vector(smoothing=0.8), some_actions(2 * T), np.zeros((N, 4))
    observation, _ = env.reset(seed=0)
    assert not observation["previous_action"].any()
    for step in range(2 * T):  # across the autoreset
        observation, *_ = env.step(actions[step])
        expected = actions[step] if step % T == 0 else 0.8 * expected + 0.2 * actions[step]
        shown = observation["previous_action"]
        if step % T == T - 1:
            assert not shown.any(), "a new image"
        else:
            assert_rounded(shown, expected)
    assert "previous_action" not in vector().reset(seed=0)[0]
    still = play(vector(smoothing=0.8), np.zeros((T, N, 4)), seed=0)
    plain = play(vector(), np.zeros((T, N, 4)), seed=0)
    assert still[-1][-1]["tokens"].tolist() == plain[-1][-1]["tokens"].tolist(), "zero is the schedule still"


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 2)])
def test_pooled_features_are_means_over_two_by_two_tokens(grid: tuple[int, int]) -> None:
    features = torch.randn(2, grid[0] * grid[1], 3, generator=torch.Generator().manual_seed(0))
    pooled, (rows, columns) = pool(features, grid), pooled_grid(grid)
    for i in range(rows):
        for j in range(columns):
            inside = [
                r * grid[1] + c
                for r in (2 * i, 2 * i + 1)
                for c in (2 * j, 2 * j + 1)
                if r < grid[0] and c < grid[1]
            ]
            torch.testing.assert_close(pooled[:, i * columns + j], features[:, inside].mean(1))
    assert pooled.shape == (2, rows * columns, 3)


def test_every_kind_of_observation_is_of_the_same_picture() -> None:
    kinds = {
        kind: play(vector(observation=kind), some_actions(), seed=0)
        for kind in ("features", "pooled", "tokens")
    }
    env = vector()
    first, _ = env.reset(seed=0)
    for step in range(T):
        full, pooled, tokens = (played[step] if step == 0 else played[step][0] for played in kinds.values())
        assert torch.equal(pooled["features"], pool(full["features"], (4, 4)))
        assert torch.equal(tokens["features"], full["features"]) and tokens["tokens"].dtype == torch.int32
        assert torch.equal(tokens["tokens"].long(), env.state.ids_BL)
        assert "tokens" not in full and torch.equal(tokens["tokens"] == 128, full["masked"].bool())
        env.step(some_actions()[step])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_generator_in_half_precision_plays(dtype: str, digits: Any) -> None:
    """Observations have the declared type, and the images are still of their classes."""
    half = copy.deepcopy(digits.generator).bfloat16()
    live: dict[str, Any] = {"generator": half, "tokenizer": digits.tokenizer}
    reward = ClassifierReward(digits.score_extractor)
    env = vector(64, schedule="maskgit", reward=reward, dtype=dtype, autoreset=False, **live)
    observation, *_ = env.reset(seed=0)
    for _ in range(T):
        assert observation["features"].dtype == getattr(torch, dtype)
        full = env.state.prediction.features_BLD
        assert full.dtype == torch.bfloat16
        assert_rounded(observation["features"], full, unit=UNIT_OF_HALF, roundings=2)
        observation, rewards, *_ = env.step(np.zeros((64, 4)))
    assert (rewards > np.log(0.5)).mean() > 0.9


def test_an_unknown_option_of_reset_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("options ['conditon'] are not known")):
        vector().reset(seed=0, options={"conditon": Labels(torch.zeros(N).long(), 10)})


def test_a_closed_environment_keeps_nothing_and_says_so() -> None:
    for env in (vector(), single()):
        inner = env if isinstance(env, DecodeVectorEnv) else env.rows
        env.reset(seed=0)
        held = [weakref.ref(thing) for thing in (inner.generator, inner.tokenizer, inner.reward.classifier)]
        held.append(weakref.ref(inner.state.prediction.features_BLD))
        env.close()
        gc.collect()
        assert [thing() for thing in held] == [None] * 4
        with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="make a new one"):
            env.reset(seed=0)
        env.close()


def test_a_weighted_sum_of_rewards_is_the_sum() -> None:
    def played(reward: Any) -> np.ndarray:
        return play(vector(reward=reward), some_actions(), seed=0)[-1][1]

    one, two = played("classifier"), played("feature-distance")
    np.testing.assert_allclose(
        played({"classifier": 1.0, "feature-distance": 0.5}), one + 0.5 * two, rtol=1e-5
    )
    mixed = played([("classifier", 2.0), (sum_of_pixels, -1.0)])
    assert_rounded(mixed, 2 * one - played(sum_of_pixels))


def test_a_live_reward_is_used_itself_and_not_a_copy() -> None:
    reward = AdversarialReward((1, 8, 8), 10, AdversarialConfig(channels=4))
    env = vector(reward=reward)
    assert env.reward is single(reward=reward).rows.reward is reward
    *_, (_, rewards, *_, info) = play(env, some_actions(), seed=0)
    condition = Labels(torch.arange(N), 10)
    assert_rounded(rewards, reward(torch.from_numpy(info["images"]), condition))
