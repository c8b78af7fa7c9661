"""What mmgcd_discover.py does: methods on splits, a folder per pair of them, and their comparison."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from _cli import open_run
from _progress import progress
from tqdm import tqdm

from generators.checkpoints import restore, save_state, write_atomic
from generators.files import read_json, reading
from generators.noise import derive_seed
from natgym.discovery.balance import branch_weights
from natgym.discovery.features import encode_pairs
from natgym.discovery.kmeans import semi_supervised_kmeans
from natgym.discovery.methods import METHODS, changed, parse_settings
from natgym.discovery.modality import Modality, clean_features, modalities_of
from natgym.discovery.number import best_agreement, labelled_share, number_by_share
from natgym.discovery.pairs import Pairs, load_pairs
from natgym.discovery.report import Discovery, differences, format_shares, frame_of, score, summarize
from natgym.discovery.split import Split, split_pairs
from natgym.discovery.training import DiscoveryTrainer, Prediction
from natgym.runs import MetricsLog, Run

if TYPE_CHECKING:
    from mmgcd_discover import Args


@dataclass(frozen=True)
class Study:
    """Methods on splits of one data set.

    Each pair of method and split has a folder in the run's jobs/, and is done when that holds result.json.
    """

    args: Args
    run: Run
    pairs: Pairs
    modalities: dict[str, Modality]


@dataclass(frozen=True, eq=False)
class Job:
    """One method on one split, which is to find `num_categories` categories."""

    method: str
    seed: int
    split: Split
    num_categories: int
    folder: Path


class Training(NamedTuple):
    """A trainer after its last epoch, and what it predicts."""

    trainer: DiscoveryTrainer
    prediction: Prediction


def run_jobs(study: Study) -> list[dict[str, Any]]:
    """Run what is missing; return the results of all."""
    args = study.args
    jobs = [(method, seed) for seed in args.splits for method in args.chosen]
    with progress(total=len(jobs) * args.train.epochs, unit="epoch") as bar:
        return [run_job(study, method, seed, bar) for method, seed in jobs]


def run_job(study: Study, method: str, seed: int, bar: tqdm) -> dict[str, Any]:
    """Return the result of one method on one split: its shares, and what it cost."""
    folder = study.run.folder / "jobs" / f"{method}-{seed}"
    bar.set_description(f"{method}, split {seed}")
    if (file := folder / "result.json").is_file():
        bar.update(study.args.train.epochs)
        return read_json(file)
    folder.mkdir(parents=True, exist_ok=True)
    split = split_of(study, seed)
    job = Job(method, seed, split, number_of_categories(study, split, seed), folder)
    # Estimate and figures serve all methods of a split, so that neither counts as a method's cost.
    began = time.process_time()
    clusters, training = discover(study, job, bar)
    cpu_seconds = time.process_time() - began
    if training is not None and (method, seed) == (shown_method(study.args), study.args.splits[0]):
        write_assignments(study, job, training)
    result = {
        "method": method,
        "split": seed,
        "num_categories": job.num_categories,
        "cpu_seconds": cpu_seconds,
        "rows": {name: score(clusters_N, study.pairs, split) for name, clusters_N in clusters.items()},
    }
    write_atomic(file, json.dumps(result, indent=2) + "\n")
    return result


def split_of(study: Study, seed: int) -> Split:
    """Return the labels that methods see."""
    args = study.args
    return split_pairs(
        study.pairs, known=args.known, known_names=args.known_names, labelled=args.labelled, seed=seed
    )


def number_of_categories(study: Study, split: Split, seed: int) -> int:
    """Return the number of categories; where it has to be estimated, that is done once per split."""
    args = study.args
    num_old = len(split.old)
    if args.num_categories.isdecimal():
        return int(args.num_categories)
    if args.num_categories == "known" and (study.pairs.labels_N >= 0).all():
        return len(study.pairs.class_names)
    file = study.run.folder / "jobs" / f"num_categories-{seed}.json"
    if not file.is_file():
        joined = clean_features(modalities_of(METHODS["k-means-joined"], study.modalities)["joined"])
        most = min(args.max_categories or 4 * num_old, len(study.pairs) - 1)
        estimate = by_agreement if args.num_categories == "agreement" else by_share
        write_atomic(file, json.dumps(estimate(joined, split, most, args.seed)) + "\n")
    with reading(file):
        return int(read_json(file)["estimate"])


def by_share(features_ND: np.ndarray, split: Split, most: int, seed: int) -> dict[str, Any]:
    """Return the number of categories by the share of labelled samples, and that share."""
    share = labelled_share(features_ND, split.targets_N, seed=seed)
    num_labelled = int((split.targets_N >= 0).sum())
    found = number_by_share(len(features_ND), num_labelled, len(split.old), share)
    return {"estimate": min(found, most), "labelled_share": share}


def by_agreement(features_ND: np.ndarray, split: Split, most: int, seed: int) -> dict[str, Any]:
    """Return the number of categories by agreement with the labels, and the agreement of each candidate."""
    num_old = len(split.old)
    # Some 40 candidates: each is a k-means of all samples.
    candidates = range(num_old, most + 1, max(1, (most - num_old) // 40))
    with progress(total=len(candidates), desc="number of categories", leave=False) as bar:
        estimate, agreement = best_agreement(
            features_ND, split.targets_N, candidates, seed=seed, progress=lambda _: bar.update()
        )
    return {"estimate": estimate, "agreement": agreement}


def discover(study: Study, job: Job, bar: tqdm) -> tuple[dict[str, np.ndarray], Training | None]:
    """Return the clusters (N,) of a method, by the names of its rows, and its training if it is one."""
    if METHODS[job.method].trained:
        trainer = train(study, job, bar)
        training = Training(trainer, trainer.predict())
        return clusters_of(job.method, training.prediction), training
    (modality,) = modalities_of(METHODS[job.method], study.modalities).values()
    clusters_N = semi_supervised_kmeans(
        clean_features(modality),
        job.split.targets_N,
        job.num_categories,
        seed=derive_seed(study.args.seed, job.seed),
    )
    bar.update(study.args.train.epochs)  # the bar counts epochs, of which k-means has none
    return {job.method: clusters_N}, None


def train(study: Study, job: Job, bar: tqdm) -> DiscoveryTrainer:
    """Train to the last epoch, going on from the folder's checkpoint if there is one."""
    args = study.args
    method = METHODS[job.method]
    modalities = modalities_of(method, study.modalities)
    settings = parse_settings(args.settings).get(job.method, {})
    config = changed(args.train, {**method.changes, **settings})
    trainer = DiscoveryTrainer(
        modalities,
        torch.from_numpy(job.split.targets_N).to(args.device),
        job.num_categories,
        config,
        weights=branch_weights(modalities, job.split.targets_N, method.balance, seed=args.seed),
        seed=derive_seed(args.seed, job.seed),
    )
    if (checkpoint := job.folder / "checkpoint.pt").is_file():
        restore(trainer, checkpoint, args.device)
    # Rows after the checkpoint are of epochs that are trained again.
    log = MetricsLog(job.folder / "metrics.csv", "epoch", trainer.done + 1, whole=True)
    share = args.train.epochs / config.epochs  # of the bar, for a method with epochs of its own
    bar.update(trainer.done * share)
    for metrics in trainer:
        log.append(metrics)
        bar.set_postfix(loss=f"{metrics['loss']:.2f}", refresh=False)
        bar.update(share)
        if trainer.done % args.checkpoint_every == 0:
            save_state(checkpoint, trainer.state_dict())
    return trainer


def clusters_of(method: str, prediction: Prediction) -> dict[str, np.ndarray]:
    """Return the fused clusters and, of several branches, those of each alone: MM-GCD without fusion."""
    probabilities = {method: prediction.fused_NK}
    if len(prediction.branches) > 1:
        probabilities |= {f"{method}, {name} branch": p_NK for name, p_NK in prediction.branches.items()}
    return {name: p_NK.argmax(1).cpu().numpy() for name, p_NK in probabilities.items()}


def shown_method(args: Args) -> str:
    """Return the method whose assignments and figures are written, if it is a training."""
    trained = [name for name in args.chosen if METHODS[name].trained]
    return "mm-gcd" if "mm-gcd" in trained else (trained or args.chosen)[-1]


def write_assignments(study: Study, job: Job, training: Training) -> None:
    """Write assignments.csv and the figures."""
    confidence_N, clusters_N = training.prediction.fused_NK.cpu().max(1)
    discovery = Discovery(
        study.pairs,
        job.split,
        clusters_N.numpy(),
        confidence_N.numpy(),
        training.trainer.embed().cpu().numpy(),
        f"{job.method}, split {job.seed}",
    )
    write_atomic(study.run.folder / "assignments.csv", discovery.table().to_csv(index=False))
    for name, figure in discovery.figures().items():
        study.run.write_figure(name, figure)


# Flags that say where to run, not what.
PLACES = ("resume", "threads", "device", "cache")


def load(args: Args) -> Pairs:
    """Return the pairs; ValueError for what would fail later."""
    pairs = load_pairs(args.pairs)
    num_old = len(split_pairs(pairs, known=args.known, known_names=args.known_names).old)
    number = int(args.num_categories) if args.num_categories.isdecimal() else num_old
    if not num_old <= number <= len(pairs):
        raise ValueError(
            f"num_categories {number}: there are {num_old} old ones and {len(pairs)} samples; it must lie "
            "between the two"
        )
    if args.max_categories is not None and args.max_categories < num_old:
        raise ValueError(f"max_categories {args.max_categories}: there are {num_old} old ones; give more")
    return pairs


def encode(args: Args, pairs: Pairs) -> dict[str, Modality]:
    """Return the modalities on the device, with a bar for what is not cached."""
    with progress(leave=False) as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        modalities = encode_pairs(pairs, args.features, args.cache, device=args.device, progress=show)
    return {name: modality.to(args.device) for name, modality in modalities.items()}


def work(args: Args) -> None:
    torch.set_num_threads(args.threads)
    args, run, pairs = open_run("mmgcd_discover", args, PLACES, load)
    results = run_jobs(Study(args, run, pairs, encode(args, pairs)))
    frame = frame_of(results)
    rows = summarize(frame)
    minus = differences(frame, "mm-gcd")
    protocol = {"data": args.pairs.data, "samples": len(pairs), "categories": pairs.class_names}
    run.write_results(protocol | {"splits": args.splits}, rows, mm_gcd_minus=minus, jobs=results)
    print(format_shares(rows, "std"))
    if minus:
        print("\nmm-gcd minus, with paired 95 % t-intervals over the splits:")
        print(format_shares(minus, "half_width", "+"))
    print(f"{run.folder}: config.json, results.json, assignments.csv, jobs/, figures/")
