"""What evaluate_captions.py does: captions drawn by each policy, and what is right in the images."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from _progress import progress

from agents.named import find_all, find_policies
from generators.conditions import Condition
from generators.noise import derive_seed
from generators.shapes.captions import Asked, HeldOut
from generators.shapes.data import place, sampled
from generators.shapes.scenes import draw
from generators.tokenizers import decode_all, encode_all
from natgym.evaluation.captions import ALL, CHOICES, by_kind, nearest, retrieval, variety
from natgym.figures.policies import prompts_figure
from natgym.metrics.extractors import extract
from natgym.metrics.scenes import Read
from natgym.rollouts import Policy, rollout
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from evaluate_captions import Args

SETS: dict[str, HeldOut | None] = {
    "seen combinations": None,
    "held-out wordings": "wordings",
    "held-out things": "things",
    "held-out relations": "relations",
}
REAL, CODED = "real", "real, coded"  # the second as the tokenizer brings them back
SHIPPED = ("autonat", "adanat")  # of those numbers of steps that there are
PROMPTS, EACH = 64, 8  # of the variety within a prompt
SHOWN = 8  # images beside their nearest ones


def captions_of(args: Args, held_out: HeldOut | None, seed: int) -> tuple[list[str], torch.Tensor]:
    """Return captions with real images of them, neither of them part of any split."""
    rng = np.random.default_rng(derive_seed("evaluate captions", held_out or "", seed))
    scenes, texts = sampled(args.images, rng, held_out)
    return list(texts), torch.from_numpy(draw(scenes)).float().div(255)


class CaptionScorer:
    """All that is drawn and judged, row by row.

    Args:
        args: of the script.
    """

    def __init__(self, args: Args) -> None:
        self.args = args
        self.bar: Any = None  # gets the images drawn
        self.task = Task.load(args.task, device=args.device)
        self.reader: Any = self.task.score_extractor
        if not hasattr(self.reader, "read"):
            raise ValueError(
                f"the score extractor of {self.task} reads no scenes; this is for the task shapes"
            )
        self.rows: list[dict[str, Any]] = []

    def draw(self, policy: Policy, condition: Condition, seed: int) -> torch.Tensor:
        """Return the images of a policy."""
        drawn = rollout(
            policy,
            self.task,
            condition=condition,
            seed=derive_seed("evaluate captions", seed),
            threads=self.args.threads,
            progress=self.bar.update,
        )
        return drawn.images_NCHW

    def add(self, name: str, steps: int | None, which: str, seed: int, texts: list[str], images: Any) -> None:
        """Take the rows of one policy on one set of captions."""
        _, logits_BN = extract(self.reader, images)
        assert logits_BN is not None
        frame, agreement = by_kind(texts, logits_BN), retrieval(texts[:1000], logits_BN[:1000])
        for row in frame.to_dict("records"):
            more = {"r_at_1": agreement} if row["kind"] == ALL else {}
            self.rows.append({"policy": name, "steps": steps, "captions": which, "seed": seed, **row, **more})

    def variety(self, policy: Policy | None, which: str) -> float:
        """Return how much images of one caption vary; of real ones, for None."""
        rng = np.random.default_rng(derive_seed("variety", which))
        _, texts = sampled(PROMPTS, rng, SETS[which])
        each = [text for text in texts for _ in range(EACH)]
        if policy is None:
            asked = [one for text in each if (one := Asked.parse(text)) is not None]
            return variety(torch.from_numpy(draw(place(asked, rng))).float().div(255), EACH, self.reader)
        return variety(self.draw(policy, self.task.named(each), 0), EACH, self.reader)


def judge(args: Args, scorer: CaptionScorer, found: list[tuple[str, Policy]]) -> dict[str, dict[str, float]]:
    """Draw and judge everything; return the variety of each policy by set."""
    for which, held_out in SETS.items():
        for seed in args.evaluation_seeds:
            texts, real = captions_of(args, held_out, seed)
            condition = scorer.task.named(texts)
            scorer.add(REAL, None, which, seed, texts, real)
            coded = encode_all(scorer.task.tokenizer, real, args.device)
            scorer.add(CODED, None, which, seed, texts, decode_all(scorer.task.tokenizer, coded, args.device))
            for name, policy in found:
                scorer.bar.set_description(f"{name}, T = {policy.steps}")
                scorer.add(name, policy.steps, which, seed, texts, scorer.draw(policy, condition, seed))
    varied: dict[str, dict[str, float]] = {}
    for which in SETS:
        of_real = scorer.variety(None, which)
        for name, policy in found:
            label = f"{name}, T = {policy.steps}"
            varied.setdefault(label, {})[which] = scorer.variety(policy, which) / of_real
    return varied


def summary(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return means and standard deviations over the seeds."""
    frame = pd.DataFrame(rows).astype({"steps": object}).fillna({"steps": "-"})
    keys = ["captions", "policy", "steps", "kind"]
    grouped = frame.groupby(keys, sort=False)[["n", *Read._fields, "r_at_1"]]
    mean, std = grouped.mean(), grouped.std(ddof=1)
    return mean.join(std.drop(columns="n").add_suffix("_std")).reset_index()


def table(summed: pd.DataFrame, which: str) -> str:
    """Return the table of one set: whole captions by kind, and the parts over all of them."""
    ours = summed[summed["captions"] == which]
    every = ours[ours["kind"] == ALL].set_index(["policy", "steps"])
    kinds = ours[ours["kind"] != ALL].pivot(index=["policy", "steps"], columns="kind", values="caption")
    shown = every[[*Read._fields, "r_at_1"]].join(kinds.add_prefix("caption: "))
    said = every["caption"].map("{:.3f}".format)
    if every["caption_std"].notna().all():  # of one seed there is no spread
        said += " ± " + every["caption_std"].map("{:.3f}".format)
    return shown.assign(caption=said).to_string(float_format="{:.3f}".format)


def show_nearest(run: Run, scorer: CaptionScorer, name: str, policy: Policy) -> None:
    """Draw samples beside the training images that are nearest to them."""
    train = scorer.task.images("train")
    texts = scorer.task.images("report").condition.names[:SHOWN]
    images = scorer.draw(policy, scorer.task.named(texts), 0)
    rows = nearest(images, train, scorer.reader)
    panels = {name: images.cpu(), "nearest in train": train[rows].cpu()}
    note = "left: samples of the report split's captions; right: the training images nearest to them"
    run.write_figure("nearest", prompts_figure(panels, texts, note))


def plays(args: Args, task: Task, spec: str) -> list[tuple[str, Policy]]:
    """Return the policies of a spec; of those that are shipped, of the numbers of steps that there are."""
    if spec not in SHIPPED:
        return find_policies(spec, args.steps, task.generator)
    found: list[tuple[str, Policy]] = []
    for steps in args.steps:
        with suppress(ValueError):
            found += find_policies(spec, [steps], task.generator)
    return found


def work(args: Args) -> None:
    torch.set_num_threads(1)
    scorer = CaptionScorer(args)
    task = scorer.task
    found = [
        (label, policy) for label, _, policy in find_all(args.policy, lambda spec: plays(args, task, spec))
    ]
    if not found:
        raise ValueError(
            f"{task} ships none of {', '.join(args.policy)} of so many steps; give another --policy"
        )
    run = Run.create("evaluate_captions", args.output, args)
    total = len(SETS) * len(found) * (args.images * len(args.evaluation_seeds) + PROMPTS * EACH) + SHOWN
    with progress(total=total, unit="img", unit_scale=True) as bar:
        scorer.bar = bar
        varied = judge(args, scorer, found)
        show_nearest(run, scorer, *found[-1])
    summed = summary(scorer.rows)
    rows = [{key: _told(value) for key, value in row.items()} for row in summed.to_dict("records")]
    told = {"task": args.task, "images": args.images, "seeds": list(args.evaluation_seeds)}
    run.write_results({**told, "variety": varied, "chance_r_at_1": 1 / CHOICES}, rows)
    for which in SETS:
        print(f"\n{which}, {args.images:,} captions for each of {len(args.evaluation_seeds)} seeds")
        print(table(summed, which))
    print(
        f"\nR@1 among {CHOICES} captions, chance {1 / CHOICES:.3f}. Variety within a caption, real images 1:"
    )
    print(pd.DataFrame(varied).T.to_string(float_format="{:.2f}".format))
    print(f"{run.folder}: config.json, results.json, figures/nearest.png")


def _told(value: Any) -> Any:
    """JSON has no NaN: what no caption asked for is null."""
    return None if isinstance(value, float) and np.isnan(value) else value
