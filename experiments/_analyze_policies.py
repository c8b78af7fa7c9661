"""What analyze_policies.py does: the same images under several policies, frames and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from _played import trained_on
from _progress import progress

from agents.adanat.critic import load_critic, load_discriminator
from agents.named import find_all, find_policies, labelled_policy
from natgym.env.recorder import film
from natgym.env.rendering import as_rgb, to_uint8
from natgym.evaluation.report import write_report
from natgym.figures.explorations import Play, write_for_report
from natgym.figures.films import disagreement, disagreement_figure, film_figure
from natgym.figures.policies import (
    adaptivity,
    by_class_figure,
    parameters_figure,
    reveal_figure,
    value_figure,
)
from natgym.rollouts import Policy, Rollout, rollout
from natgym.runs import Run
from natgym.task import Task

if TYPE_CHECKING:
    from analyze_policies import Args


class Analysis:
    """Policies with their rollouts, all on the same noise."""

    def __init__(self, args: Args) -> None:
        torch.set_num_threads(1)
        self.args = args
        played = args.generator or trained_on(Path(args.policies[0])) or "digits"
        self.task = Task.load(played, device=args.device)
        self.generator = self.task.generator
        self.tokenizer = self.task.tokenizer
        self.plays = {label: (policy, spec) for label, spec, policy in find_all(args.policies, self._find)}
        for steps in sorted({policy.steps for policy, _ in self.plays.values()}):
            label, rival = find_policies(args.against, [steps], self.generator)[0]
            if rival.steps != steps:
                raise ValueError(
                    f"against {args.against!r} has T = {rival.steps}, not {steps}; take a schedule"
                )
            self.plays.setdefault(self.rival(steps), (rival, label))
        self.drawn: dict[str, Rollout] = {}

    def _find(self, spec: str) -> list[tuple[str, Policy]]:
        """Return a named policy at --steps, a run's at its own number of steps with its critic."""
        if not Path(spec).exists():
            return find_policies(spec, [self.args.steps], self.generator)
        label, policy = labelled_policy(spec, self.generator)
        return [(label, load_critic(Path(spec), policy))]

    def rival(self, steps: int) -> str:
        return f"{self.args.against}, T = {steps}"

    def draw(self) -> None:
        """Play every policy on the same noise."""
        args = self.args
        condition = self.task.asked(args.samples)
        total = len(self.plays) * args.samples
        with progress(total=total, unit="img", unit_scale=True) as bar:
            for label, (policy, spec) in self.plays.items():
                bar.set_description(label)
                self.drawn[label] = rollout(
                    policy,
                    self.generator,
                    self.tokenizer,
                    condition,
                    seed=args.seed,
                    reward=self._reward(spec),
                    statistics=True,
                    trail=True,
                    threads=args.threads,
                    progress=bar.update,
                )

    def _reward(self, spec: str) -> Any:
        return load_discriminator(Path(spec), self.task)

    def frame(self) -> pd.DataFrame:
        """Return one tidy frame of all policies."""
        frames = [drawn.frame.assign(policy=label) for label, drawn in self.drawn.items()]
        return pd.concat(frames, ignore_index=True)

    def strips(self, label: str, samples: int) -> dict[str, Any]:
        """Return film strips of the first samples under a policy and under its rival."""
        rival = self.rival(self.plays[label][0].steps)
        strips = {}
        films = {name: film(self.drawn[name], self.tokenizer, rows=samples) for name in (label, rival)}
        for sample in range(samples):
            for name, moments in films.items():
                strips[f"sample {sample}\n{name}"] = [moment[sample] for moment in moments]
        return strips

    def pictures(self, label: str) -> Any:
        """Return all finished images, (N, H, W, 3) uint8."""
        return to_uint8(as_rgb(self.drawn[label].images_NCHW))


def illustrate(analysis: Analysis, run: Run) -> pd.DataFrame:
    """Write all figures; return how much each policy adapts."""
    args = analysis.args
    drawn = analysis.drawn
    note = f"{args.samples:,} samples, the same noise and conditions for every policy"
    frames = {label: rows.frame for label, rows in drawn.items()}
    bands = f"line: mean; bands: 50 % and 90 %; thin: five single samples; {note}"
    run.write_figure("parameters", parameters_figure(frames, bands, samples=5))
    positions = {label: rows.revealed_at_NL.cpu() for label, rows in drawn.items()}
    run.write_figure("revealed", reveal_figure(positions, analysis.generator.grid, note))
    shares = []
    for label, (policy, _) in analysis.plays.items():
        frame = frames[label]
        shares.append(adaptivity(frame).assign(policy=label))
        rival = analysis.rival(policy.steps)
        if label == rival:
            continue
        run.write_figure(f"by-class-{label}", by_class_figure(frame, f"{label}: means by class; {note}"))
        if frame["value"].notna().any() and "reward" in frame:
            caption = "reward: the discriminator's after the last update, which the policy was not trained on"
            run.write_figure(f"value-{label}", value_figure(frame, caption))
        same = f"{label} and {rival} from the same noise; masked tokens are blue-grey"
        run.write_figure(f"film-{label}", film_figure(analysis.strips(label, args.films), same))
        if policy.steps == analysis.plays[rival][0].steps and len(frame) == len(frames[rival]):
            pair = {label: frame, rival: frames[rival]}
            most = [int(i) for i in disagreement(*pair.values()).index[: args.films]]
            shown = {name: analysis.pictures(name) for name in pair}
            figure = disagreement_figure(pair, shown, f"where they differ most; {note}", samples=most)
            run.write_figure(f"disagreement-{label}", figure)
    return pd.concat(shares, ignore_index=True)


def work(args: Args) -> None:
    analysis = Analysis(args)
    run = Run.create("analyze_policies", args.output, args)
    analysis.draw()
    path = run.folder / f"frame.{args.format}"
    frame = analysis.frame()
    frame.to_csv(path, index=False) if args.format == "csv" else frame.to_parquet(path, index=False)
    shares = illustrate(analysis, run)
    shares.to_csv(run.folder / "adaptivity.csv", index=False)
    print("Shares of each parameter's variance between steps, between classes and within class and step;")
    print("spread: standard deviation within a step, in the parameter's unit")
    print(shares.set_index(["policy", "parameter"]).to_string(float_format="{:.3f}".format))
    plays = {label: Play(policy, analysis.task) for label, (policy, _) in analysis.plays.items()}
    write_for_report(run.folder, plays)
    write_report(run.folder, "What the policies decide", _sentences(shares))
    print(f"{run.folder}: {path.name}, adaptivity.csv, figures/, report.html")


def _sentences(shares: pd.DataFrame) -> list[str]:
    """Say of each policy how far its parameters move beyond what a static schedule would do."""
    sentences = []
    for policy, rows in shares.groupby("policy", sort=False):
        spreads = zip(rows["parameter"], rows["spread"], strict=True)
        moves = ", ".join(f"{name.replace('_', ' ')} {spread:.3f}" for name, spread in spreads)
        sentences.append(f"{policy}: standard deviation within a step (0 for a static schedule): {moves}.")
    return sentences
