"""A fifth decoding parameter, registered by a program of its own, with no file changed."""

import os
import subprocess
import sys
from pathlib import Path

from agents.adanat.actor import Actor, ActorConfig
from agents.adanat.network import PolicyConfig
from generators.checkpoints import save_pretrained
from generators.schedules import reference

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path

from generators.parameters import DecodingParameter, register

register(DecodingParameter(name="top_p", symbol="p", title="nucleus", high=1.0, neutral=1.0, bound=4.0))

import numpy as np
import torch

from agents.autonat.search import Measurement, Search, SearchConfig
from natgym.policies import FixedPolicy
import agents.adanat.actor
from agents.autonat.strategies import Around, Parameters
from generators.checkpoints import from_pretrained, save_pretrained
from generators.schedules import PARAMETERS, Schedule
from natgym.figures.policies import adaptivity, by_class_figure, parameters_figure
from natgym.env.vector import DecodeVectorEnv
from natgym.rollouts import rollout
from natgym.figures.searches import schedules_figure

folder, shipped, actor = map(Path, sys.argv[1:])
env = DecodeVectorEnv(20, steps=2)
assert env.single_action_space.high.tolist() == [3.0, 5.0, 3.5, 3.5, 4.0]
env.reset(seed=0)
info = env.step(np.zeros((20, 5), np.float32))[-1]
assert info["top_p"].tolist() == [1.0] * 20 and not info["clipped"].any()
info = env.step(np.full((20, 5), -9, np.float32))[-1]
assert (info["top_p"] < 1).all() and info["clipped"].all()

old = Schedule.load(shipped)
assert old.table_T4.shape == (4, 5) and (old.table_T4[:, 4] == 1).all()
moved = Around(old).schedule(np.full(len(Around(old).start), -0.5))
assert (moved.table_T4[:, 4] < 1).all()
for name in ("moved.json", "moved.yaml"):
    moved.save(folder / name)
assert torch.equal(Schedule.load(folder / "moved.json").table_T4, moved.table_T4)
assert torch.equal(Schedule.load(folder / "moved.yaml").table_T4[:, :4][:, 2:], moved.table_T4[:, 2:4])
space = Parameters(4)
assert (space.schedule(space.start).table_T4[:, 4] == 1).all()

learned = from_pretrained(actor)
assert learned.config.parameters == PARAMETERS[:4] and (learned.schedule[:, 4] == 1).all()
save_pretrained(learned, folder / "actor")
assert torch.equal(from_pretrained(folder / "actor").schedule, learned.schedule)

drawn = rollout(FixedPolicy(moved), env.generator, env.tokenizer, env.generator.conditions(), seed=0)
assert "action_top_p" in drawn.frame and (drawn.frame["top_p"] < 1).all()
assert len(adaptivity(drawn.frame)) == 5

config = SearchConfig(budget=400, images_per_evaluation=20, warm="start", finalists=1, final_images=30)
search = Search("cma", config, 3, 0, folder / "log.csv")
evaluation = search.open()[0]
search.finish(evaluation, Measurement(1.0, 0.5))
assert "top_p_2" in (folder / "log.csv").read_text()

figures = (
    schedules_figure({"moved": moved, "old": old}, "note"),
    parameters_figure({"moved": drawn.frame}, "note"),
    by_class_figure(drawn.frame, "note"),
)
for number, figure in enumerate(figures):
    assert any("nucleus" in axis.get_title() + axis.get_ylabel() for axis in figure.axes)
    figure.savefig(folder / f"{number}.png")
print("played")
"""


def test_a_fifth_parameter_is_played_saved_loaded_searched_and_drawn(tmp_path: Path) -> None:
    widths = vars(PolicyConfig(width=8, channels=4, hidden=(8, 8), frequencies=8))
    around = {"actions": "default", "schedule_name": "reference"}
    actor = Actor(ActorConfig(policy=widths, grid=(4, 4), features_width=8, steps=3, **around))
    actor.schedule.copy_(reference(3).table_T4)
    save_pretrained(actor, tmp_path / "four")
    shipped = ROOT / "generators" / "pretrained" / "digits" / "nat" / "strategies" / "autonat-T4.json"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(shipped), str(tmp_path / "four")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("played\n"), done.stderr[-2000:]
