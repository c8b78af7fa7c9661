"""Puzzles as tasks: given cells, rewards by the rules, a price per pass, and what is chosen by."""

import math

import numpy as np
import pytest
import torch

import natgym
from agents import AdaNATTrainer
from agents.adanat.config import TrainingConfig
from agents.autonat.scorer import Evaluation, ScheduleScorer
from agents.named import find_policy
from generators import conditions
from generators.noise import derive_seed
from generators.puzzles.data import PUZZLES, answers, hidden_cells
from generators.schedules import as_schedule
from natgym.evaluation.objective import Objective
from natgym.evaluation.scorer import Scorer
from natgym.metrics.puzzles import PuzzleReader, PuzzleReaderConfig
from natgym.rewards import make_reward
from natgym.task import Task

NAME = "sudoku-4"
SUDOKU = PUZZLES[NAME]


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.load(NAME)


def right(tokens_NL: torch.Tensor) -> np.ndarray:
    """Which grids are right in all rows, columns and boxes, by sorting."""
    grids = tokens_NL.view(-1, 4, 4).numpy()
    boxes = grids.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
    units = np.concatenate([grids, grids.transpose(0, 2, 1), boxes], axis=1)
    return (np.sort(units, axis=2) == np.arange(4)).all((1, 2))


def test_the_given_cells_are_those_of_the_split(task: Task) -> None:
    begun = task.begun("report")
    symbols = torch.from_numpy(answers(NAME, "report"))
    hidden = hidden_cells(NAME, "report", "few")
    assert torch.equal(begun.given_BL, symbols.masked_fill(hidden, -1))
    other = Task.load(f"{NAME}#given=unique=6")
    assert (other.begun("select").given_BL >= 0).sum(1).unique().tolist() == [6]
    assert other.name == f"{NAME}#given=unique=6" and task.name == NAME
    assert Task.load(other.spec).given == other.given
    assert torch.equal(task.examples(5).given_BL, task.begun("select").given_BL[:5])
    with pytest.raises(ValueError, match="sudoku-4 has the forms few, unique"):
        Task.load(f"{NAME}#given=left").begun("select")


def test_a_reader_reads_what_was_drawn_and_what_holds(task: Task) -> None:
    symbols = torch.randint(4, (50, 16))
    symbols[:20] = torch.from_numpy(answers(NAME, "select")[:20])
    images = task.tokenizer.decode(symbols)
    reader = PuzzleReader(PuzzleReaderConfig(puzzle=NAME))
    told = reader.read([""] * 50, reader(images)[1])
    assert told["valid"] == right(symbols).mean() >= 0.4
    assert told["held"] == pytest.approx(SUDOKU.holds(symbols.numpy()).mean())
    valid, held = (make_reward(name, task)(images, task.examples(50)) for name in ("valid", "held"))
    assert valid.tolist() == right(symbols).tolist()
    assert held.tolist() == pytest.approx(SUDOKU.holds(symbols.numpy()).mean(1).tolist())
    with pytest.raises(ValueError, match="task 'digits' is no puzzle"):
        make_reward("valid", "digits")
    with pytest.raises(ValueError, match="puzzle 'go' is not one of sudoku-4"):
        PuzzleReaderConfig(puzzle="go")


def test_tables_say_how_many_are_solved_and_the_more_passes_the_more(task: Task) -> None:
    policies = {"T = 2": find_policy("maskgit", 2, task.generator)} | {"one by one": "threshold:theta=1"}
    table = natgym.evaluate(policies, task, steps=16, images=300, seeds=[0])
    rows = {row["policy"]: row for row in table.rows}
    assert rows["T = 2"]["valid"] < rows["one by one"]["valid"]
    assert rows["one by one"]["valid"] > 0.9 and rows["one by one"]["nfe"] == pytest.approx(13, abs=1)
    assert "accuracy" not in rows["T = 2"] and "valid" in str(table)


def test_the_environment_rewards_a_right_grid_and_never_changes_what_is_given(task: Task) -> None:
    env = natgym.DecodeVectorEnv(40, task=task, steps=3, schedule="maskgit", autoreset=False)
    env.reset(seed=0)
    given = env.state.condition.given_BL  # type: ignore[union-attr]
    assert ((given >= 0).sum(1) == 3).all()
    for _ in range(3):
        _, rewards, _, _, info = env.step(np.zeros(env.action_space.shape, dtype=np.float32))
    tokens = torch.from_numpy(info["tokens"])
    assert (tokens[given >= 0] == given[given >= 0]).all()
    assert rewards.tolist() == right(tokens).tolist() and 0 < rewards.mean() < 1
    assert env.action_map.parameters == ("mask_ratio", "remask_temperature", "sampling_temperature")


def test_a_pass_has_its_price(task: Task) -> None:
    """Rows that reveal all at once go on without passes, and pay for those that they took."""
    found = {}
    for price in (0.0, 0.05):
        env = natgym.DecodeVectorEnv(30, task=task, steps=4, price=price, autoreset=False)
        env.reset(seed=0)
        actions = np.zeros(env.action_space.shape, dtype=np.float32)
        actions[:10, 0] = -3  # fewest masks that the map allows
        for _ in range(4):
            _, rewards, _, _, info = env.step(actions)
        found[price] = rewards
    assert found[0.05] == pytest.approx(found[0.0] - 0.05 * info["nfe"])
    assert env.like(num_envs=2).price == 0.05
    for price in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"price {price}: it must be a number from 0 on"):
            natgym.DecodeVectorEnv(2, task=task, price=price)


def test_an_objective_is_what_is_wrong_and_what_it_costs(task: Task) -> None:
    policy = find_policy("maskgit", 3, task.generator)
    drawn = natgym.rollout(policy, task, condition=task.asked(200), seed=4)
    scorer = Scorer(task.score_extractor, task.images("select"))  # type: ignore[arg-type]
    measured = Objective("valid", price=0.1).of(scorer, [drawn])
    wrong = 1 - right(drawn.tokens_NL).mean()
    assert measured.distance == pytest.approx(wrong + 0.1 * drawn.nfe_N.mean())
    assert measured.error == pytest.approx(
        math.hypot(math.sqrt(wrong * (1 - wrong) / 200), 0.1 * drawn.nfe_N.std() / math.sqrt(200))
    )
    plain = Objective().of(scorer, [drawn])
    assert plain.distance == pytest.approx(scorer.distance(drawn.images_NCHW))
    with pytest.raises(ValueError, match="objective caption: the score extractor of task 'sudoku-4'"):
        ScheduleScorer(task, objective="caption")


def test_searches_and_trainings_are_chosen_by_the_same_puzzles_of_select(task: Task) -> None:
    held, seen = ({tuple(row) for row in task.begun(of).given_BL.tolist()} for of in ("select", "train"))
    asked = task.asked(150, "select")
    assert {tuple(row) for row in asked.given_BL.tolist()} <= held - seen  # type: ignore[union-attr]
    schedule = as_schedule("maskgit", 3)
    scorer = ScheduleScorer(task, objective="valid", price=0.02)
    searched = scorer(Evaluation(0, 0, schedule, 150, 7, True, "select"))
    drawn = natgym.rollout(natgym.FixedPolicy(schedule), task, condition=asked, seed=7)
    wrong = 1 - right(drawn.tokens_NL).mean()
    assert searched.distance == pytest.approx(wrong + 0.02 * drawn.nfe_N.mean())
    at_random = scorer(Evaluation(0, 0, schedule, 90, 7, False, "select"))
    chosen = conditions.at_random(task.pool_of("select"), 90, derive_seed(7, "conditions"))
    drawn = natgym.rollout(natgym.FixedPolicy(schedule), task, condition=chosen, seed=7)
    wrong = 1 - right(drawn.tokens_NL).mean()
    assert at_random.distance == pytest.approx(wrong + 0.02 * drawn.nfe_N.mean())
    assert {tuple(row) for row in chosen.given_BL.tolist()} <= held - seen  # type: ignore[union-attr]
    config = TrainingConfig.of(
        task=NAME, steps=3, schedule="maskgit", reward="valid", objective="valid", price=0.02, updates=1,
        trajectories=32, minibatch=32, evaluation_images=150, finalists=1, alarms={"recall": 0.0},
    )  # fmt: skip
    trainer = AdaNATTrainer.of(config)
    trainer.begin()
    play = trainer.actor()
    seed = derive_seed(0, "select")
    drawn = natgym.rollout(play, task, condition=asked, seed=seed)
    wrong = 1 - right(drawn.tokens_NL).mean()
    assert trainer.monitor.vitals.distance == pytest.approx(wrong + 0.02 * drawn.nfe_N.mean())
    assert trainer.monitor.columns["nfe"] == pytest.approx(drawn.nfe_N.mean())
    free = AdaNATTrainer.of(config.but(price=0.0)).monitor.columns
    assert free.keys() == trainer.monitor.columns.keys() - {"nfe"}, "only where passes have a price"
    with pytest.raises(ValueError, match="objective valid: the score extractor of task 'digits'"):
        AdaNATTrainer.of(TrainingConfig.of(objective="valid"))


def test_a_chain_is_solved_along_it_and_confidence_finds_the_way() -> None:
    """A control of questions of order: by the sums themselves, one a pass."""
    chain = Task.load("chain")
    solved = {}
    for rule in ("confidence", "random"):
        policy = find_policy(f"linear:sampling=.1,remask=0,rule={rule}", 12, chain.generator)
        drawn = natgym.rollout(policy, chain, condition=chain.begun("report")[:60], seed=0)
        numbers_NS, sums_NS = drawn.tokens_NL[:, :12], drawn.tokens_NL[:, 12:]
        solved[rule] = float((numbers_NS.cumsum(1) % 5 == sums_NS).all(1).double().mean())
    assert solved["confidence"] > 0.9 and solved["random"] < 0.6


def test_images_are_begun_for_a_generator_that_is_yet_to_learn() -> None:
    chain = Task.load("chain")
    bare = Task("chain", chain.description, tokenizer=chain.tokenizer)
    bare.given = chain.given
    assert torch.equal(bare.begun("select").given_BL, chain.begun("select").given_BL)
