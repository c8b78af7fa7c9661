# %% [markdown]
# # From images to a learned decoding policy, in minutes on a CPU
#
# A masked-token generator draws an image as a grid of tokens in T parallel steps. Four numbers decide
# each step: how many tokens are masked again, two temperatures, and the guidance scale w (logits = l_c
# + w (l_c - l_u); w = 0 is none). This tutorial trains a generator, sets hand-made schedules side by
# side, searches a better one, lets a policy learn, and writes a report. Run it as it stands, `python
# docs/tutorial/tutorial.py [FOLDER]`, or cell by cell.
#
# Where something is trained, `reference.csv` beside this file says what three runs of ours gave at the
# same point: a number far outside of it means that something is broken, not that it is early.

# %%
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from agents.adanat.presets import preset
from agents.adanat.trainer import train
from agents.named import find_policies
from generators.checkpoints import from_pretrained
from generators.data import load_split
from generators.nat import NAT, nat_digits
from generators.noise import derive_seed, seeded
from generators.schedules import family
from generators.training import Trainer, small_recipe
from natgym.evaluation.evaluator import EvaluationConfig, Evaluator
from natgym.evaluation.report import write_report
from natgym.evaluation.scorer import Scorer
from natgym.evaluation.tables import FULL_COLUMNS, format_table, set_against, summarize
from natgym.figures.comparisons import frontier_figure
from natgym.figures.explorations import Play, write_for_report
from natgym.figures.policies import adaptivity, parameters_figure, samples_figure
from natgym.figures.trainings import learning_figure
from natgym.policies import FixedPolicy
from natgym.rollouts import balanced, rollout
from natgym.runs import Run
from natgym.task import Task

torch.set_num_threads(1)
HERE = Path(__file__).parent
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else None
# A share of all budgets, for a quick look; the reference curves are those of 1.
BUDGET = float(os.environ.get("NATGYM_TUTORIAL_BUDGET", "1"))
STEPS = 4


def budget(number: int, least: int = 1) -> int:
    """Scale a number of updates or images."""
    return max(least, round(BUDGET * number))


run = Run.create("tutorial", FOLDER, small_recipe())

# %% [markdown]
# ## The task
#
# Real digits of 8x8 pixels, cut into three parts that never mix: *train* is for whatever learns,
# *select* for whatever chooses, *report* for the tables alone. A tokenizer turns an image into 4x4
# tokens of 128 kinds. What the tokens lose is a floor under every generator of them.

# %%
parts = {name: load_split("digits", name) for name in ("train", "select", "report")}
task = Task.load("digits")
tokenizer, classifier = task.tokenizer, task.score_extractor
select = Scorer(classifier, parts["select"])
ids_NL = tokenizer.encode(parts["train"].images_NCHW)
print({name: len(part) for name, part in parts.items()}, "images;", tuple(ids_NL.shape), "tokens")
coded = tokenizer.decode(tokenizer.encode(parts["select"].images_NCHW))
print(f"distance of the select split from itself, after the tokenizer: {select.distance(coded):.3f}")

# %% [markdown]
# ## A generator of one's own
#
# A small NAT learns to fill in hidden tokens. Its distance is measured with MaskGIT's temperatures, on
# the select split, and stands beside what three seeds of ours gave. A loss near ln 128 = 4.85 would mean
# that it learns nothing.


# %%
def distance_of(generator: NAT, schedule: str) -> float:
    """Draw 500 images and compare them with the select split."""
    condition = balanced(generator.conditions(), budget(500, 50))
    policy = FixedPolicy(family(schedule, STEPS))
    return select.distance(rollout(policy, generator, tokenizer, condition, seed=1).images_NCHW)


def train_generator(seed: int) -> tuple[NAT, pd.DataFrame]:
    """Train for 400 updates; return the averaged network and its curve."""
    updates, rows = budget(400, 8), []
    with seeded(derive_seed(seed, "generator")):
        generator = NAT(nat_digits())
    recipe = small_recipe(updates=updates, warmup=budget(100), seed=seed)
    trainer = Trainer(generator, ids_NL, parts["train"].condition, recipe)
    for metrics in trainer:
        if trainer.done % max(1, updates // 4) == 0:
            own = {"update": trainer.done, "loss": metrics["loss"]}
            rows.append(own | {"distance": distance_of(trainer.ema, "maskgit")})
    return trainer.ema, pd.DataFrame(rows)


own, curve = train_generator(seed=0)
expected = pd.read_csv(HERE / "reference.csv")
print(curve.merge(expected, on="update", how="left").to_string(index=False, float_format="{:.3f}".format))

# %% [markdown]
# ## A table of hand-made schedules
#
# From here on we take the generator that natgym ships, trained for longer. Each policy draws
# the same conditions on the same noise; the difference to the reference is paired over the seeds, with
# its 95 % t-interval. Rows are sorted by forward passes (NFE), which is what images cost.

# %%
generator = task.generator
names = ["reference", "maskgit", "random-order", "linear", "halton", "entropy-bounded:epsilon=8", "one-step"]
policies = {name: find_policies(name, [STEPS], generator)[0][1] for name in names}
evaluator = Evaluator(task, EvaluationConfig(images=budget(500, 40)))


def table() -> list[dict]:
    """Evaluate every policy there is by now on the report split."""
    rows = [summarize(name, policy.steps, evaluator(policy), 0) for name, policy in policies.items()]
    return set_against(rows, "reference")


print(format_table(table(), FULL_COLUMNS))

# %% [markdown]
# ## A search
#
# Curves with parameters make a small space: a Beta distribution's two parameters bend the mask ratio,
# three scales set temperatures and guidance. Random search, on the select split only: what it finds is
# not judged where it was found. AutoNAT's own search, over all 4T - 2 numbers, is
# `experiments/autonat_search.py`.

# %%
rng = np.random.default_rng(0)
tried = []
for _ in range(budget(24, 2)):
    a, b, remask, w = np.exp(rng.uniform(np.log([0.7, 0.7, 1, 0.2]), np.log([3, 3, 20, 4])))
    spec = f"beta-cdf:a={a:.3f},b={b:.3f},remask={remask:.3f},w={w:.3f}"
    tried.append((distance_of(generator, spec), spec))
distance, found = min(tried)
print(f"best of {len(tried)} on the select split: {distance:.3f}, {found}")
schedule = run.folder / "searched.json"
family(found, STEPS).save(schedule)
policies["searched"] = find_policies(str(schedule), [STEPS], generator)[0][1]

# %% [markdown]
# ## A policy that sees the image
#
# AdaNAT starts from the searched schedule and adjusts each step to what the generator sees, by PPO
# against a discriminator. With a good start there is little to gain on this task, and sixteen updates
# are few: where none of them comes nearer to the select split, the start itself is kept, and the row
# `adanat` below is that of `searched`. `adaptivity` says what a policy does with its freedom: shares of
# each parameter's variance between steps (a schedule's), between classes, and between samples. What
# longer trainings learn, from worse starts, is `experiments/adanat_ppo.py`.

# %%
config = preset("small_adversarial").but(
    steps=STEPS,
    schedule=str(schedule),
    updates=budget(16, 1),
    trajectories=128,
    warmup=budget(4, 1),
    evaluate_every=4,
    evaluation_images=budget(500, 50),
)
train(config, run.folder, lambda metrics: None)
metrics = pd.read_csv(run.folder / "metrics.csv")
run.write_figure(
    "learning",
    learning_figure({"adanat": metrics}, "distance from the select split, the same noise each time"),
)
policies["adanat"] = from_pretrained(run.folder / "policy")  # type: ignore[assignment]
condition = balanced(generator.conditions(), budget(500, 50))
drawn = {
    name: rollout(policies[name], generator, tokenizer, condition, seed=2)
    for name in ("reference", "searched", "adanat")
}
print(adaptivity(drawn["adanat"].frame).to_string(index=False, float_format="{:.3f}".format))

# %% [markdown]
# ## A report
#
# One page with the table, the figures, the protocol, and a panel of images being revealed under two
# policies, step by step; it needs no server and no network.

# %%
frames = {name: one.frame for name, one in drawn.items()}
run.write_figure("parameters", parameters_figure(frames, "line: mean; bands: 50 % and 90 %", samples=5))
grids = {name: one.images_NCHW[:50] for name, one in drawn.items()}
run.write_figure(
    "samples", samples_figure(grids, [str(i) for i in range(10)], "the same noise in each panel")
)
own = task.like(generator=generator)
write_for_report(
    run.folder, {name: Play(policies[name], own) for name in ("adanat", "searched", "reference")}
)
rows = table()
run.write_figure("frontier", frontier_figure(rows, "bars: 95 % t-intervals over three seeds"))
rows += evaluator.floors(parts["train"])
run.write_results(evaluator.manifest(), rows)
print(format_table(rows, FULL_COLUMNS))
page = write_report(run.folder, "The tutorial's run", evaluator.legend().splitlines())
print(f"{page}: {json.loads((run.folder / 'results.json').read_text())['protocol']['images']} images a seed")
