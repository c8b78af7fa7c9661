"""Episodes as data: what files hold is what was played, and it plays again to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import natgym
from agents.autonat.class_table import ClassTable
from agents.named import find_policy
from agents.studies.distilled import by_class, static
from generators.decoding import advance, start
from generators.noise import HashNoise
from generators.schedules import PARAMETERS, DecodeParams, maskgit, reference
from natgym.env import episodes
from natgym.env.episodes import Episodes, record, replay
from natgym.env.minari_data import from_minari, to_minari
from natgym.policies import ACTIONS, Decision, FixedPolicy
from natgym.rollouts import rollout
from natgym.task import Task

N, T = 30, 4


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.load("digits")


@pytest.fixture(scope="module")
def policy(digits: Task) -> Any:
    return find_policy("adanat", T, digits.generator)


def ink(images: Any, condition: Any) -> Any:
    return images.mean((1, 2, 3))


@pytest.fixture(scope="module")
def explored(digits: Task, policy: Any) -> Episodes:
    return record(
        policy, digits, num_images=N, seed=3, reward=ink, action_std=0.3, facts={"policy": "adanat"}
    )


def same(one: Episodes, other: Episodes) -> None:
    """All values, to the bit, and the facts."""
    assert one.facts == other.facts and [*one.frame] and {*one.frame} == {*other.frame}
    for name in one.frame:
        ours, theirs = one.frame[name], other.frame[name]
        if name in ("tokens", "token_log_probs"):
            assert np.array_equal(one.stacked(name), other.stacked(name)), name
        elif name in ("condition", "kind"):
            assert ours.tolist() == theirs.tolist()
        elif name == "chosen" and ours.notna().any():
            assert np.array_equal(one.stacked(name), other.stacked(name))
        elif name == "chosen":
            assert ours.isna().all() and theirs.isna().all()
        else:
            assert np.array_equal(ours.to_numpy(np.float64), theirs.to_numpy(np.float64), equal_nan=True), (
                name
            )


def test_the_mean_is_what_a_rollout_plays(digits: Task, policy: Any) -> None:
    """The same images and frame; without exploration there is no log-probability of actions."""
    played = record(policy, digits, num_images=N, seed=3, reward=ink)
    drawn = rollout(policy, digits, num_images=N, seed=3, reward=ink, trail=True)
    assert drawn.ids_TNL is not None and len(played) == N and played.steps == T
    assert np.array_equal(played.stacked("tokens"), drawn.ids_TNL.transpose(0, 1).numpy())
    expected = drawn.frame.sort_values(["sample", "step"], kind="stable")
    for name in (*PARAMETERS, *ACTIONS, "nfe", "reward"):
        ours, theirs = played.frame[name].to_numpy(float), expected[name].to_numpy(float)
        assert np.array_equal(ours, theirs, equal_nan=True), name
    assert played.frame["condition"].tolist() == expected["condition"].tolist()
    assert played.frame["seed"].tolist() == [3 + row for row in range(N) for _ in range(T)]
    assert played.frame["log_prob"].isna().all() and played.frame["chosen"].isna().all()


def test_a_file_holds_all_and_replays(digits: Task, explored: Episodes, tmp_path: Path) -> None:
    explored.save(tmp_path / "episodes.parquet")
    again = Episodes.load(tmp_path / "episodes.parquet")
    same(explored, again)
    assert torch.equal(replay(again, digits), torch.from_numpy(explored.stacked("tokens")))
    with pytest.raises(ValueError, match="episodes.parquet exists or does not end in .parquet"):
        explored.save(tmp_path / "episodes.parquet")


def test_a_slow_loop_draws_the_same(digits: Task, explored: Episodes) -> None:
    """Row by row of the frame alone: what is played, and the log-probabilities of what is drawn."""
    frame, generator = explored.frame, digits.generator
    for episode in (0, 17):
        rows = frame[frame["episode"] == episode]
        condition, noise = digits.named([rows["condition"].iloc[0]]), HashNoise(torch.tensor([3 + episode]))
        state = start(generator, condition, steps=T)
        rules = natgym.DecodeRules.of(explored.facts["rules"], generator.grid)
        for _, row in rows.iterrows():
            params = DecodeParams(*(torch.tensor([row[name]], dtype=torch.float64) for name in PARAMETERS))
            state = advance(generator, state, params, noise, rules)
            assert row["tokens"].tolist() == state.ids_BL[0].tolist()
            torch.testing.assert_close(torch.tensor(row["token_log_probs"]), state.log_probs_BL[0])
        images = digits.tokenizer.decode(state.ids_BL)
        assert rows["reward"].tolist() == pytest.approx([0] * (T - 1) + [float(images.mean())], rel=1e-5)


def test_actions_play_the_same_in_the_environment(digits: Task, policy: Any, explored: Episodes) -> None:
    """The file's actions, given to the environment that they are of; and their density by its formula."""
    actions_NTk = np.stack([explored.stacked(name) for name in ACTIONS], -1)
    env = natgym.DecodeVectorEnv(
        N, task=digits, steps=T, actions=policy.action_map(), rules=policy.rules, reward=ink
    )
    env.reset(seed=3, options={"condition": explored.stacked("condition")[:, 0].tolist()})
    for step in range(T):
        _, rewards, _, _, info = env.step(actions_NTk[:, step].astype(np.float32))
        for name in PARAMETERS:
            assert np.array_equal(info[name], explored.stacked(name)[:, step]), (name, step)
    assert np.array_equal(info["tokens"], explored.stacked("tokens")[:, -1])
    assert rewards == pytest.approx(explored.stacked("reward")[:, -1])

    def mean(row: int) -> np.ndarray:
        """Actions that the policy decides in the first step, where nothing depends on what was drawn."""
        played = record(policy, digits, digits.named([str(row % 10)]), seed=3 + row)
        return np.stack([played.stacked(name)[0, 0] for name in ACTIONS])

    for row in (0, 8, 29):
        off = (actions_NTk[row, 0] - mean(row)).astype(float)
        expected = sum(-0.5 * (x / 0.3) ** 2 - np.log(0.3 * np.sqrt(2 * np.pi)) for x in off)
        assert explored.stacked("log_prob")[row, 0] == pytest.approx(expected, abs=1e-4)
    spread = actions_NTk[:, 0] - np.stack([mean(row) for row in range(N)])
    assert 0.2 < spread.std() < 0.4


def test_minari_holds_all_and_replays(
    digits: Task, explored: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason="the extra `minari` is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = to_minari(explored, "natgym/digits-v0")
    assert dataset.total_episodes == N and dataset.total_steps == N * T
    for name, said in (("natgym/digits-v0", "which is not overwritten"), ("digits", "with a version")):
        with pytest.raises(ValueError, match=said):
            to_minari(explored, name)
    again = from_minari("natgym/digits-v0")
    same(explored, again)
    replay(again, digits)
    first = minari.load_dataset("natgym/digits-v0")[0]
    assert first.observations["tokens"].shape == (T + 1, 16) and first.actions.shape == (T, 4)
    assert (first.observations["tokens"][0] == digits.generator.mask_id).all()
    assert first.rewards[-1] > 0 and first.terminations.tolist() == [False] * (T - 1) + [True]


class Choosing:
    """Reveals tokens from the left, as many a step."""

    steps = T

    def __call__(self, observation: Any, step: int) -> DecodeParams:
        return reference(T).params(step, len(observation["step"]))

    def decide(self, observation: Any, step: int) -> Decision:
        chosen = torch.arange(16).expand(len(observation["step"]), -1) < 4 * (step + 1)
        return Decision(self(observation, step), chosen_BL=chosen)


def test_chosen_tokens_are_kept(digits: Task, tmp_path: Path) -> None:
    played = record(Choosing(), digits, num_images=5, seed=0)
    played.save(tmp_path / "chosen.parquet")
    again = Episodes.load(tmp_path / "chosen.parquet")
    same(played, again)
    replay(again, digits)
    for refused in (static, lambda episodes: to_minari(episodes, "natgym/chosen-v0")):
        if refused is not static:
            pytest.importorskip("minari", reason="the extra `minari` is not installed")
        with pytest.raises(ValueError, match="policy chose tokens"):
            refused(played)


def test_captions_replay_too(tmp_path: Path) -> None:
    shapes = Task.load("shapes")
    condition = shapes.named(["a red disc", "a blue square above a red disc", "a red disc"])
    played = record(FixedPolicy(maskgit(2)), shapes, condition, seed=1)
    played.save(tmp_path / "episodes.parquet")
    tokens_NTL = replay(Episodes.load(tmp_path / "episodes.parquet"), shapes)
    assert tokens_NTL.shape == (3, 2, 36) and played.frame["condition"][4] == "a red disc"


def test_what_does_not_fit_is_told(digits: Task, explored: Episodes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the episodes are of generator .*, "):
        replay(explored, "mnist")
    other = explored.frame.copy()
    other.loc[7 * T, "sampling_temperature"] += 1.0
    with pytest.raises(ValueError, match="episode 7 draws other tokens than it did"):
        replay(Episodes(other, explored.facts), digits)
    with pytest.raises(ValueError, match="action_std is for learned policies"):
        record(FixedPolicy(reference(2)), digits, num_images=2, seed=0, action_std=0.1)
    with pytest.raises(ValueError, match="num_images 0: give at least 1"):
        record(FixedPolicy(reference(2)), digits, num_images=0, seed=0)
    with pytest.raises(ValueError, match="num_images 5 and a condition of 2 rows; give either"):
        record(FixedPolicy(reference(2)), digits, digits.every[:2], num_images=5, seed=0)
    with pytest.raises(ValueError, match="gives tokens, which no column says"):
        record(FixedPolicy(reference(2)), "sudoku-4", num_images=2, seed=0)
    wrong: dict[str, Any] = {
        "bytes": b"PAR1 and no more",
        "another": pd.DataFrame({"a": [1]}),
        "lacking": explored.frame.drop(columns="tokens"),
        "cut": explored.frame[:-1],
        "mixed": explored.frame[::-1],
    }
    for name, content in wrong.items():
        path = tmp_path / f"{name}.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.attrs = {} if name == "another" else {"natgym": explored.facts}
            content.to_parquet(path)
        with pytest.raises(ValueError, match=f"{name}.parquet"):
            Episodes.load(path)


def test_means_are_distilled(digits: Task, explored: Episodes, tmp_path: Path) -> None:
    """A loop over rows; and a table of a schedule's own episodes is that schedule."""
    schedule, table = static(explored), by_class(explored, digits.every.names)
    for step in range(T):
        rows = explored.frame[explored.frame["step"] == step]
        for place, name in enumerate(PARAMETERS):
            assert float(schedule.table_T4[step, place]) == pytest.approx(sum(rows[name]) / N)
            for label in range(10):
                of_class = [row[name] for _, row in rows.iterrows() if row["condition"] == str(label)]
                found = table.schedules[table.assignment[label]].table_T4[step, place]
                assert len(of_class) == 3 and float(found) == pytest.approx(sum(of_class) / 3)
    table.save(tmp_path / "table.json")
    assert ClassTable.load(tmp_path / "table.json").assignment == table.assignment
    played = record(FixedPolicy(maskgit(T)), digits, num_images=N, seed=0)
    seen = {"masked": torch.zeros(2), "condition": torch.tensor([0, 9])}
    for distilled in (FixedPolicy(static(played)), by_class(played, digits.every.names)):
        for found, expected in zip(distilled(seen, 1), maskgit(T).params(1, 2), strict=True):
            torch.testing.assert_close(found, expected)
    without = Episodes(explored.frame[explored.frame["condition"] != "7"], explored.facts)
    with pytest.raises(ValueError, match="no episode is of '7'; a table by class needs images of each"):
        by_class(without, digits.every.names)


def test_a_reward_that_compares_images_sees_all_of_them(
    digits: Task, explored: Episodes, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def above_the_mean(images: Any, condition: Any) -> Any:
        return ink(images, condition) - ink(images, condition).mean()

    above_the_mean.needs_batch = True  # type: ignore[attr-defined]
    monkeypatch.setattr(episodes, "BATCH", 12)
    found = record(policy, digits, num_images=N, seed=3, reward=above_the_mean, action_std=0.3)
    reward_N = explored.stacked("reward")[:, -1]
    assert found.stacked("reward")[:, -1] == pytest.approx(reward_N - reward_N.mean(), abs=1e-6)
    assert not found.stacked("reward")[:, :-1].any()


def test_a_file_is_there_when_it_is_whole(
    explored: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(frame: pd.DataFrame, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"PAR1")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    with pytest.raises(OSError, match="no space left"):
        explored.save(tmp_path / "episodes.parquet")
    assert not [*tmp_path.iterdir()]
