"""The search: budgets kept, noise shared where meant, the second look decides, and a log that survives."""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from agents.autonat.scorer import Evaluation, Measurement, ScheduleScorer
from agents.autonat.search import GridConfig, OptimizerName, Search, SearchConfig, not_beaten
from generators.conditions import Labels
from generators.noise import derive_seed
from generators.schedules import Schedule, maskgit, reference
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.runs import read_metrics

STEPS = 3
CONFIG = SearchConfig(
    images_per_evaluation=10,
    budget=1000,
    race=1,
    finalists=4,
    final_images=30,
    grid=GridConfig(remask=(1.0, 2.0, 4.0), sampling=(0.9, 1.0), guidance=(0.0, 1.0)),
)
EVERY = get_args(OptimizerName)
GOAL = maskgit(STEPS).table_T4


def distance(evaluation: Evaluation) -> Measurement:
    """A known function instead of images: squared distance from a schedule, and noise of the seed."""
    noise = np.random.default_rng(evaluation.seed % 2**32).normal() / evaluation.images
    return Measurement(float((evaluation.schedule.table_T4 - GOAL).square().mean()) + noise, 0.5)


def finish(search: Search, stop: int | None = None, order: int = 0) -> list[Evaluation]:
    """Finish a search, in any order within a generation; stop after a number of evaluations."""
    rng, done = np.random.default_rng(order), list[Evaluation]()
    while search.result is None and len(done) != stop:
        evaluation = search.open()[int(rng.integers(len(search.open())))]
        search.finish(evaluation, distance(evaluation))
        done.append(evaluation)
    return done


def tables(evaluations: list[Evaluation]) -> list[list[float]]:
    return [evaluation.schedule.table_T4.flatten().tolist() for evaluation in evaluations]


@pytest.mark.parametrize("optimizer", EVERY)
def test_a_search_keeps_its_budget_and_improves(optimizer: OptimizerName, tmp_path: Path) -> None:
    search = Search(optimizer, CONFIG, STEPS, 0, tmp_path / "log.csv")
    done = finish(search)
    assert sum(evaluation.images for evaluation in done) == search.spent <= CONFIG.budget
    assert search.result is not None and search.open() == []
    first, last = done[0], Evaluation(0, 0, search.result, 10**9, 0, True)
    assert distance(last).distance <= distance(first._replace(images=10**9)).distance
    assert [evaluation.number for evaluation in search.asked] == list(range(len(done)))


@pytest.mark.parametrize("optimizer", EVERY)
def test_points_of_a_generation_share_their_noise(optimizer: OptimizerName, tmp_path: Path) -> None:
    """But AutoNAT's own, whose points and labels are all drawn anew. No two generations share any."""
    search = Search(optimizer, CONFIG, STEPS, 0, tmp_path / "log.csv")
    finish(search)
    by_generation = itertools.groupby(search.asked, key=lambda evaluation: evaluation.generation)
    *explored, (_, final) = [(number, list(group)) for number, group in by_generation]
    seeds = [{evaluation.seed for evaluation in group} for _, group in explored]
    assert len(set.union(*seeds)) == sum(map(len, seeds)), "a seed of one generation in another"
    for (_, group), found in zip(explored, seeds, strict=True):
        assert len(found) == (len(group) if optimizer == "paper" else 1)
        assert all(evaluation.balanced == (optimizer != "paper") for evaluation in group)
    assert len({evaluation.seed for evaluation in final}) == 1 and all(one.balanced for one in final)
    assert final[0].seed not in set.union(*seeds)
    assert len(set(map(tuple, tables(final)))) == len(final), "a finalist twice"


def test_the_second_look_alone_decides(tmp_path: Path) -> None:
    """First look by grid point: 7, 2, 9, 0 are the four best, in this order. Second: 9 wins among them."""
    firsts = [0.4, 0.9, 0.2, 0.8, 0.7, 0.6, 0.5, 0.1, 1.0, 0.3, 1.1, 1.2]
    seconds = {7: 0.5, 2: 0.35, 9: 1 / 3, 0: 0.40}
    search = Search("grid", CONFIG, STEPS, 5, tmp_path / "log.csv")
    points = [reference(STEPS, remask=r, sampling=t, guidance=w).table_T4 for r, t, w in CONFIG.grid.points]
    for evaluation, first in zip(search.open(), firsts, strict=True):
        assert torch.equal(evaluation.schedule.table_T4, points[evaluation.number])
        assert evaluation.seed == derive_seed(5, "search", 0)
        search.finish(evaluation, Measurement(first, 0.1))
    finalists = [tables([evaluation])[0] for evaluation in search.open()]
    assert finalists == [points[at].flatten().tolist() for at in seconds]
    for evaluation, second in zip(search.open(), seconds.values(), strict=True):
        assert evaluation.images == 30 and evaluation.seed == derive_seed(5, "search", 1)
        search.finish(evaluation, Measurement(second, 0.1))
    assert search.result is not None and torch.equal(search.result.table_T4, points[9])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return `optimizer -> (search, its evaluations, its log)`, each run once."""

    @functools.cache
    def run(optimizer: OptimizerName) -> tuple[Search, list[Evaluation], str]:
        log = tmp_path_factory.mktemp("whole") / "log.csv"
        search = Search(optimizer, CONFIG, STEPS, 2, log)
        evaluations = finish(search)
        return search, evaluations, log.read_text()

    return run


@pytest.mark.parametrize("optimizer", ["paper", "grid", "cma", "coordinate"])
@pytest.mark.parametrize("stop", [0, 1, 7, 40])
@pytest.mark.parametrize("half_line", [False, True])
def test_an_interrupted_search_goes_on(
    optimizer: OptimizerName, stop: int, half_line: bool, tmp_path: Path, uninterrupted: Any
) -> None:
    """Nothing is measured twice but what was cut in the middle of its line; the end is the same to the bit.

    Within a generation the evaluations finish in another order each time, as on a cluster.
    """
    log = tmp_path / "log.csv"
    whole, expected, text = uninterrupted(optimizer)
    before = finish(Search(optimizer, CONFIG, STEPS, 2, log), stop=min(stop, len(expected) - 1), order=1)
    if half_line and before:
        log.write_bytes(log.read_bytes()[:-3])
        before = before[:-1]
    resumed = Search(optimizer, CONFIG, STEPS, 2, log)
    assert resumed.spent == sum(evaluation.images for evaluation in before)
    after = finish(resumed, order=2)
    numbers = [evaluation.number for evaluation in (*before, *after)]
    assert sorted(numbers) == list(range(len(expected)))
    assert resumed.known == whole.known and tables(resumed.asked) == tables(whole.asked)
    assert resumed.result is not None and whole.result is not None
    assert torch.equal(resumed.result.table_T4, whole.result.table_T4)
    assert sorted(log.read_text().splitlines()) == sorted(text.splitlines())


def test_a_long_search_looks_at_its_own_generation_alone(tmp_path: Path) -> None:
    """So that a search, and a resume, of n evaluations takes n steps and not n squared."""

    class Counting(dict[int, Measurement]):
        looks = 0

        def __contains__(self, number: object) -> bool:
            self.looks += 1
            return super().__contains__(number)

    config = SearchConfig(images_per_evaluation=4, budget=4800, finalists=2, final_images=4, warm="none")
    search = Search("random", config, 2, 0, tmp_path / "log.csv")
    known = search.known = Counting()
    search.run(lambda evaluation: Measurement(float(evaluation.schedule.table_T4.sum()), 0.1))
    assert len(known) > 1000 and known.looks < 20 * len(known)  # 8 are open at first


def test_a_log_of_other_schedules_is_refused(tmp_path: Path) -> None:
    """As of a version that ranks finalists differently: nothing measured is taken for something else."""
    log = tmp_path / "log.csv"
    finish(Search("grid", CONFIG, STEPS, 0, log), stop=12)
    finish(Search("grid", CONFIG, STEPS, 0, log), stop=2)
    kept = log.read_text()
    Search("grid", CONFIG, STEPS, 0, log)
    *before, last = kept.splitlines()
    number, *middle, guidance = last.split(",")
    log.write_text("\n".join([*before, ",".join([number, *middle, str(float(guidance) + 0.25)])]) + "\n")
    changed = log.read_text()
    with pytest.raises(ValueError, match=f"another schedule as evaluation {number} than this search asks"):
        Search("grid", CONFIG, STEPS, 0, log)
    assert log.read_text() == changed


def test_every_evaluation_is_a_whole_line(tmp_path: Path) -> None:
    """Flushed before the next one starts, with distance and schedule to the last bit."""
    search = Search("cma", CONFIG, STEPS, 0, tmp_path / "log.csv")
    for count in range(1, 30):
        done = finish(search, stop=1)[0]
        rows = read_metrics(tmp_path / "log.csv")
        assert len(rows) == count and int(rows[-1]["evaluation"]) == done.number
        assert float(rows[-1]["distance"]) == distance(done).distance
        assert float(rows[-1]["remask_temperature_1"]) == done.schedule.table_T4[1, 1].item()


def test_a_search_follows_its_seed(tmp_path: Path) -> None:
    asked = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        search = Search("cma", CONFIG, STEPS, seed, tmp_path / name)
        finish(search)
        asked.append(([evaluation.seed for evaluation in search.asked], tables(search.asked)))
    assert asked[0] == asked[1] != asked[2]


def test_a_search_without_a_family_begins_at_its_start(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, warm="none", start="maskgit")
    search = Search("coordinate", config, STEPS, 0, tmp_path / "log.csv")
    assert torch.equal(search.open()[0].schedule.table_T4, maskgit(STEPS).table_T4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"budget": 0}, "budget 0"),
        ({"budget": 120}, "budget 120: 4 finalists take 120 images, an evaluation 10"),
        ({"images_per_evaluation": 0}, "images_per_evaluation 0"),
        ({"finalists": 0}, "finalists 0"),
        ({"race": 0}, "race 0"),
        ({"race": 11}, "race 11: an evaluation has 10 images"),
        ({"family_share": 1.0}, "family_share 1.0"),
        ({"family_share": 0.0}, "family_share 0.0"),
    ],
)
def test_an_impossible_search_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(CONFIG, **values)


@pytest.mark.parametrize("values", [{"remask": ()}, {"sampling": (0.0,)}, {"guidance": (-1.0,)}])
def test_an_impossible_grid_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="grid"):
        GridConfig(**values)


def test_a_budget_below_one_generation_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, budget=200)
    with pytest.raises(ValueError, match="grid takes 120 images for its first generation"):
        Search("grid", config, STEPS, 0, tmp_path / "log.csv")
    assert not (tmp_path / "log.csv").exists()


@pytest.mark.parametrize(
    ("budget", "optimizer", "each", "last"),
    [
        (85_000, "grid", (85_000 - 5 * 1_700) // 75, 1_700),
        (85_000, "cma", 300, 1_700),
        (200_000, "cma", 300, 2_000),
        (40_000, "grid", (40_000 - 5 * 800) // 75, 800),
        (40_000, "paper", 300, 800),
    ],
)
def test_images_are_dealt_by_the_budget(
    budget: int, optimizer: Any, each: int, last: int, tmp_path: Path
) -> None:
    config = SearchConfig(budget=budget, race=1, warm="none")
    assert config.per_evaluation(optimizer) == each and config.per_finalist == last
    search = Search(optimizer, config, STEPS, 0, tmp_path / "log.csv")
    assert {evaluation.images for evaluation in search.open()} == {each}
    given = dataclasses.replace(config, images_per_evaluation=100, final_images=50)
    assert given.per_evaluation(optimizer) == 100 and given.per_finalist == 50


def test_candidates_meet_the_train_split_and_finalists_select(tmp_path: Path) -> None:
    splits: tuple[Any, ...] = ("train", "select")
    for split in splits:
        search = Search("cma", dataclasses.replace(CONFIG, split=split), STEPS, 0, tmp_path / split)
        finish(search)
        last = search.asked[-1].generation
        for evaluation in search.asked:
            assert evaluation.split == ("select" if evaluation.generation == last else split)


def test_a_race_drops_what_is_shown_to_lose(tmp_path: Path) -> None:
    """Chunks of the same noise for all: a level of each candidate, one of each chunk, little else."""
    config = dataclasses.replace(CONFIG, images_per_evaluation=12, race=3)
    levels = [float(level) for level in np.random.default_rng(0).permutation(12)]
    search = Search("grid", config, STEPS, 0, tmp_path / "log.csv")
    first = search.open()
    level = {repr(tables([one])[0]): value for one, value in zip(first, levels, strict=True)}

    def measure(evaluation: Evaluation) -> Measurement:
        chunk = np.random.default_rng(evaluation.generation).normal()
        own = np.random.default_rng(evaluation.number).normal(scale=0.3)
        return Measurement(level[repr(tables([evaluation])[0])] + 5 * chunk + own, 0.1)

    search.run(measure)
    generations = [list(group) for _, group in itertools.groupby(search.asked, lambda one: one.generation)]
    assert [len(group) for group in generations[:2]] == [12, 12] and generations[0][0].images == 4
    left = {level[repr(tables([one])[0])] for one in generations[2]}
    assert 0.0 in left and max(left) < 4 and len(left) < 6
    assert search.result is not None
    winner = level[repr(search.result.table_T4.flatten().tolist())]
    assert winner == 0.0 and search.spent < 12 * 12


def test_bounds_of_a_race_by_hand() -> None:
    """The residual mean square of a two-way layout without interaction, and a t-quantile."""
    distances_NK = np.array([[1.0, 2.0, 1.5], [1.2, 2.1, 1.8], [2.0, 3.5, 2.6], [1.1, 1.9, 1.7]])
    N, K = distances_NK.shape
    grand = distances_NK.mean()
    residual = 0.0
    for row, column in itertools.product(range(N), range(K)):
        fitted = distances_NK[row].mean() + distances_NK[:, column].mean() - grand
        residual += (distances_NK[row, column] - fitted) ** 2
    bound = 2.4469 * (2 * residual / ((N - 1) * (K - 1)) / K) ** 0.5  # t of 6 degrees of freedom, 97.5 %
    means = distances_NK.mean(1)
    assert not_beaten(distances_NK).tolist() == [bool(mean - means.min() <= bound) for mean in means]
    assert not_beaten(distances_NK).tolist() == [True, True, False, True]
    assert not_beaten(distances_NK[:, :1]).all() and not_beaten(distances_NK[:1]).all()


def test_a_race_seldom_loses_the_best() -> None:
    """Over 2,000 races of 20 candidates whose best leads by half a chunk's noise."""
    rng, lost = np.random.default_rng(0), 0
    for _ in range(2000):
        levels_N = np.append(0.0, 0.5 + rng.exponential(size=19))
        distances_NK = levels_N[:, None] + rng.normal(size=(20, 2))
        lost += not not_beaten(distances_NK)[0]
    assert lost / 2000 < 0.05


def test_a_schedule_is_measured_by_pictures_of_the_select_part() -> None:
    """Balanced conditions and the row seeds of the evaluation, or random ones."""
    scorer, schedule = ScheduleScorer("digits"), reference(2, remask=8)
    measured = scorer(Evaluation(7, 3, schedule, 200, 11, True))
    condition = balanced(scorer.generator.conditions(), 200)
    drawn = rollout(FixedPolicy(schedule), scorer.generator, scorer.tokenizer, condition, seed=11)
    assert measured.distance == scorer.scorer().distance(drawn.images_NCHW)
    assert ScheduleScorer("digits", threads=2)(Evaluation(0, 0, schedule, 200, 11, True)) == measured
    other = scorer(Evaluation(7, 3, schedule, 200, 11, False))
    assert other.distance != measured.distance and abs(other.distance - measured.distance) < 0.5


def test_the_error_is_the_spread_of_repeated_measurements() -> None:
    """Of independent images; the classes are drawn at random too, as in a plain bootstrap."""
    scorer, schedule = ScheduleScorer("digits"), reference(1)
    seen = [scorer(Evaluation(0, 0, schedule, 200, seed, False)) for seed in range(0, 40_000, 1000)]
    spread = float(np.std([one.distance for one in seen], ddof=1))
    assert np.mean([one.error for one in seen]) == pytest.approx(spread, rel=0.4)


def test_a_saved_schedule_plays_what_was_found(tmp_path: Path) -> None:
    search = Search("cma", CONFIG, STEPS, 0, tmp_path / "log.csv")
    finish(search)
    assert search.result is not None
    search.result.save(tmp_path / "strategy.json")
    assert torch.equal(Schedule.load(tmp_path / "strategy.json").table_T4, search.result.table_T4)


def test_a_search_leaves_guidance_out_where_there_is_nothing_to_guide_by() -> None:
    class OneClass:
        pool = Labels(torch.zeros(3, dtype=torch.long), 1)

    scorer = object.__new__(ScheduleScorer)
    config = SearchConfig(coarse=GridConfig(remask=(1.0, 2.0), sampling=(1.0,), guidance=(0.0, 1.0)))
    scorer.task = OneClass()  # type: ignore[assignment]
    found = scorer.suited(config)
    assert found.coarse.points == [(1.0, 1.0, 0.0), (2.0, 1.0, 0.0)] and len(found.grid.points) == 15
    OneClass.pool = Labels(torch.zeros(3, dtype=torch.long), 2)
    assert scorer.suited(config) is config
