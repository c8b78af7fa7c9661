"""What the panel is told is what a rollout says: tokens, steps, confidences, parameters, passes, scores."""

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.adanat.learned import started_from
from agents.named import find_policies, shipped_policy
from generators.conditions import balanced
from generators.schedules import PARAMETERS, TABLE
from natgym.env.rendering import to_uint8
from natgym.figures import explorations
from natgym.figures.explorations import Play, explore, write_for_report
from natgym.figures.films import disagreement
from natgym.rollouts import Rollout, rollout
from natgym.task import Task

N = 12


def plays(task: Task, specs: list[str], steps: int) -> dict[str, Play]:
    found = {spec: find_policies(spec, [steps], task.generator)[0][1] for spec in specs}
    return {spec: Play(policy, task) for spec, policy in found.items()}


def drawn(one: Play, seed: int, images: int = N, **options: Any) -> Rollout:
    task, asked = one.task, balanced(one.task.examples(images), images)
    return rollout(one.policy, task, condition=asked, seed=seed, trail=True, statistics=True, **options)


@pytest.fixture(scope="module", params=["digits", "sudoku-4"])
def told(request: pytest.FixtureRequest) -> tuple[dict[str, Play], dict[str, Any]]:
    """Two policies with T steps and one that takes as many as each image needs, as JSON has them."""
    specs = {"digits": ["adanat", "maskgit"], "sudoku-4": ["adanat", "linear:sampling=.1"]}[request.param]
    steps = {"digits": 4, "sudoku-4": 8}[request.param]
    played = plays(Task.load(request.param), [*specs, "threshold:theta=.3"], steps)
    return played, json.loads(json.dumps(explore(played, N, "x", seed=5), allow_nan=False))


def test_tokens_and_steps_are_those_of_the_trail(told: Any) -> None:
    played, content = told
    for (label, one), policy in zip(played.items(), content["policies"], strict=True):
        expected = drawn(one, 5)
        assert expected.ids_TNL is not None and policy["label"] == label
        assert policy["tokens"] == expected.tokens_NL.tolist()
        assert policy["grid"] == list(one.task.generator.grid)
        revealed_at = np.array(policy["revealed_at"])
        for step, ids_NL in enumerate(expected.ids_TNL):
            assert ((revealed_at <= step) == (ids_NL != one.task.generator.mask_id).numpy()).all()
        given = expected.condition.given_BL
        assert ((revealed_at < 0) == (False if given is None else (given >= 0).numpy())).all()
        assert revealed_at.max() + 1 == policy["steps"] <= one.policy.steps
    assert content["names"] == expected.condition.names and content["seed"] == 5


def test_confidences_are_those_that_the_frame_has_the_mean_of(told: Any) -> None:
    played, content = told
    for one, policy in zip(played.values(), content["policies"], strict=True):
        frame = drawn(one, 5).frame.set_index(["sample", "step"])
        for sample in range(N):
            at = np.array(policy["revealed_at"][sample])
            confidence = policy["confidence"][sample]
            assert all((value is None) == (step < 0) for value, step in zip(confidence, at, strict=True))
            for step in set(at[at >= 0]):
                logs = [math.log(confidence[token]) for token in np.flatnonzero(at == step)]
                assert sum(logs) / len(logs) == pytest.approx(
                    frame.loc[(sample, step), "confidence"], abs=6e-3
                )


def test_parameters_and_passes_are_those_of_the_frame(told: Any) -> None:
    """Where they decide something: not where all is revealed, nor in a last step that ignores them."""
    played, content = told
    assert content["parameters"] == [TABLE[name].title.split(" (")[0] for name in PARAMETERS]
    for one, policy in zip(played.values(), content["policies"], strict=True):
        frame = drawn(one, 5).frame.set_index(["sample", "step"])
        for sample in range(N):
            for step in range(policy["steps"]):
                row = frame.loc[(sample, step)]
                assert policy["passes"][sample][step] == row["nfe"]
                for name, rows in zip(PARAMETERS, policy["parameters"], strict=True):
                    idle = TABLE[name].idle_at_end and step + 1 == policy["steps"]
                    if row["masked_before"] and not idle:
                        assert rows[sample][step] == pytest.approx(row[name], rel=1e-3)
                    else:
                        assert rows[sample][step] is None


def test_images_lie_in_one_png_row_by_row(told: Any) -> None:
    played, content = told
    for one, policy in zip(played.values(), content["policies"], strict=True):
        data = base64.b64decode(policy["images"].removeprefix("data:image/png;base64,"))
        whole = np.asarray(Image.open(io.BytesIO(data)))
        high, wide = policy["size"]
        for sample, picture in enumerate(to_uint8(drawn(one, 5).images_NCHW)):
            row, column = divmod(sample, policy["columns"])
            cut = whole[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            assert (cut.reshape(picture.shape) == picture).all()


def test_how_far_policies_are_apart_is_said_of_those_with_the_same_steps(told: Any) -> None:
    played, content = told
    first, second = (drawn(one, 5).frame for one in list(played.values())[:2])
    pairs = {tuple(one["pair"]): one["values"] for one in content["apart"]}
    steps = [policy["steps"] for policy in content["policies"]]
    assert set(pairs) == {(a, b) for a in range(3) for b in range(a + 1, 3) if steps[a] == steps[b]}
    if (0, 1) in pairs:
        expected = disagreement(first, second).sum(axis=1).sort_index()
        assert pairs[0, 1] == pytest.approx(expected.to_list(), rel=1e-3) and max(pairs[0, 1]) > 0


def test_each_image_is_judged_by_itself(told: Any) -> None:
    played, content = told
    for one, policy in zip(played.values(), content["policies"], strict=True):
        expected = drawn(one, 5)
        if content["scores"] == ["class probability"]:
            for sample in range(N):
                image_1CHW = (expected.images_NCHW[sample : sample + 1] * 255).round() / 255
                logits = one.task.score_extractor(image_1CHW)[1][0]
                chance = logits.exp()[sample % 10] / logits.exp().sum()
                assert policy["scores"]["class probability"][sample] == pytest.approx(chance.item(), rel=2e-3)
        else:
            assert content["scores"] == ["valid", "held"] and policy["symbols"] == "1234"
            grids = expected.tokens_NL.view(-1, 4, 4).numpy()
            boxes = grids.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
            units = np.concatenate([grids, grids.transpose(0, 2, 1), boxes], axis=1)
            held = (np.sort(units, axis=2) == np.arange(4)).all(2)
            assert policy["scores"]["valid"] == held.all(1).tolist()
            assert policy["scores"]["held"] == pytest.approx(held.mean(1), rel=1e-3)
            assert policy["boxes"] == [2, 2]


def test_captions_are_judged_where_they_ask_for_something() -> None:
    task = Task.load("shapes")
    asked = ["a red disc", "a red disc above a blue square"]
    content = explore(
        plays(task, ["maskgit"], 2), 4, "x", ask=lambda task, images: balanced(task.named(asked), images)
    )
    scores = content["policies"][0]["scores"]
    assert content["names"] == asked * 2 and content["scores"] == list(task.score_extractor.tells)
    assert [value is None for value in scores["relations"]] == [True, False] * 2
    assert set(scores["caption"]) <= {0.0, 1.0}


def test_batches_don_t_matter_and_rewards_are_told(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    played, seen = plays(digits, ["threshold:theta=.07", "halton"], 3), []

    def bright(images_NCHW: torch.Tensor, condition: Any) -> torch.Tensor:
        return images_NCHW.mean((1, 2, 3))

    whole = explore(played, N, "x", rewards={"bright": bright})
    monkeypatch.setattr(explorations, "BATCH", 5)
    assert explore(played, N, "x", rewards={"bright": bright}, progress=seen.append) == whole
    assert seen == [5, 5, 2] * 2
    expected = drawn(played["halton"], 0).images_NCHW.mean((1, 2, 3))
    assert whole["policies"][1]["scores"]["bright"] == pytest.approx(expected.tolist(), rel=1e-3)
    assert whole["scores"] == ["bright", "class probability"]


def test_what_is_too_large_is_refused_before_and_after_the_first_policy(digits: Task) -> None:
    played = plays(digits, ["maskgit", "halton"], 2)
    with pytest.raises(
        ValueError, match=r"10,000,000 images under 2 policies take at least 1,920.0 MB, more than 1"
    ):
        explore(played, 10_000_000, "x", most=1e6)
    drawn_of: list[int] = []
    with pytest.raises(ValueError, match="draw fewer images, or allow more megabytes"):
        explore(played, 40, "x", most=15_000, progress=drawn_of.append)
    assert drawn_of == [40], "the second policy is not drawn"
    long, short = plays(digits, ["maskgit"], 8), plays(digits, ["halton"], 1)
    sizes = [len(json.dumps(explore(one, 40, "x")["policies"][0])) for one in (long, short)]
    assert 2 * sizes[1] < sum(sizes) < 2 * sizes[0], "each has its own"
    assert explore(long | short, 40, "x", most=sum(sizes))["title"] == "x"
    with pytest.raises(ValueError, match="40 images under 2 policies take at least 0.0 MB"):
        explore(short | long, 40, "x", most=sum(sizes) - 1)


def test_rewards_may_be_arrays_and_have_to_be_finite(digits: Task) -> None:
    played = plays(digits, ["maskgit"], 1)
    ink = {"ink": lambda images, condition: images.mean((1, 2, 3)).numpy()}
    whole = explore(played, 3, "x", rewards=ink)  # type: ignore[arg-type]
    assert len(whole["policies"][0]["scores"]["ink"]) == 3
    with pytest.raises(ValueError, match="the reward of row 0 is nan"):
        explore(played, 3, "x", rewards={"ink": lambda images, condition: images.mean((1, 2, 3)) / 0 * 0})


def test_reports_get_few_images_and_of_large_ones_fewer(
    digits: Task, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = plays(digits, ["maskgit", "halton"], 2)
    for most, images in ((8_000_000, 16), (2 * 64 * 7, 7), (1, 2)):
        monkeypatch.setattr(explorations, "_MOST_IN_REPORTS", most)
        write_for_report(tmp_path, played)
        content = json.loads((tmp_path / "explore.json").read_text())
        assert len(content["names"]) == images == len(content["policies"][1]["tokens"])


def test_a_learned_policy_is_known_by_what_it_started_from(digits: Task) -> None:
    actor: Any = shipped_policy(digits.generator, 4)
    start = started_from(actor)
    assert start is not None and torch.equal(start.schedule.table_T4, actor.schedule)
    puzzles = Task.load("sudoku-4")
    learned: Any = shipped_policy(puzzles.generator, 8)
    rule = started_from(learned)
    assert rule is not None and rule.rules is not None
    assert rule.rules.text == "sure,most=1" and rule.steps == learned.steps
    assert started_from(start) is None
