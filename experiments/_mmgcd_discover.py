"""What mmgcd_discover.py does: methods on splits, a folder per pair of them, and their comparison."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _cli import open_run
from _progress import progress
from tqdm import tqdm

from generators.checkpoints import load_state, save_state, write_atomic
from generators.noise import derive_seed
from natgym.discovery.balance import branch_weights
from natgym.discovery.features import encode_pairs
from natgym.discovery.kmeans import estimate_num_categories, semi_supervised_kmeans
from natgym.discovery.methods import METHODS, changed, parse_settings
from natgym.discovery.modality import Modality, clean_features, modalities_of
from natgym.discovery.pairs import Pairs, load_pairs
from natgym.discovery.report import Discovery, differences, format_shares, frame_of, score, summarize
from natgym.discovery.split import Split, split_pairs
from natgym.discovery.training import DiscoveryTrainer, Prediction
from natgym.runs import MetricsLog, Run

if TYPE_CHECKING:
    from mmgcd_discover import Args


class Study:
    """Methods on splits of one data set: a folder per pair of them, done when it holds result.json."""

    def __init__(self, args: Args, run: Run, pairs: Pairs, modalities: dict[str, Modality]) -> None:
        self.args, self.run, self.pairs, self.modalities = args, run, pairs, modalities
        self.settings = parse_settings(args.settings)

    def __call__(self) -> list[dict[str, Any]]:
        """Run what is missing; return the results of all."""
        jobs = [(method, split) for split in self.args.splits for method in self.args.chosen]
        with progress(total=len(jobs) * self.args.train.epochs, unit="epoch") as bar:
            return [self.job(method, split, bar) for method, split in jobs]

    def job(self, method: str, seed: int, bar: tqdm) -> dict[str, Any]:
        """Return the result of one method on one split: its shares, and what it cost."""
        folder = self.run.folder / "jobs" / f"{method}-{seed}"
        bar.set_description(f"{method}, split {seed}")
        if (file := folder / "result.json").is_file():
            bar.update(self.args.train.epochs)
            return json.loads(file.read_text())
        folder.mkdir(parents=True, exist_ok=True)
        split = self.split(seed)
        K, began = self.number(split, seed), time.process_time()
        if METHODS[method].trained:
            trainer = self.train(method, split, K, seed, folder, bar)
            prediction = trainer.predict()
            clusters = clusters_of(method, prediction)
        else:
            clusters = {method: self.cluster(method, split, K, seed)}
            bar.update(self.args.train.epochs)
        took = time.process_time() - began
        if METHODS[method].trained and (method, seed) == (self.shown, self.args.splits[0]):
            self.show(trainer, prediction, split, f"{method}, split {seed}")
        rows = {name: score(found, self.pairs, split) for name, found in clusters.items()}
        result = {"method": method, "split": seed, "num_categories": K, "cpu_seconds": took, "rows": rows}
        write_atomic(file, json.dumps(result, indent=2) + "\n")
        return result

    def split(self, seed: int) -> Split:
        args = self.args
        return split_pairs(
            self.pairs, known=args.known, known_names=args.known_names, labelled=args.labelled, seed=seed
        )

    def number(self, split: Split, seed: int) -> int:
        """Return the number of categories, estimated once per split where it is not given."""
        asked, num_old = self.args.num_categories, len(split.old)
        if asked.isdecimal():
            return int(asked)
        if asked == "known" and (self.pairs.labels_N >= 0).all():
            return len(self.pairs.class_names)
        file = self.run.folder / "jobs" / f"num_categories-{seed}.json"
        if not file.is_file():
            joined = modalities_of(METHODS["k-means-joined"], self.modalities)["joined"]
            most = min(self.args.max_categories or 4 * num_old, len(self.pairs) - 1)
            candidates = range(num_old, most + 1, max(1, (most - num_old) // 40))
            with progress(total=len(candidates), desc="number of categories", leave=False) as bar:
                found, scores = estimate_num_categories(
                    clean_features(joined),
                    split.targets_N,
                    candidates,
                    seed=self.args.seed,
                    progress=lambda _: bar.update(),
                )
            write_atomic(file, json.dumps({"estimate": found, "agreement": scores}) + "\n")
        return json.loads(file.read_text())["estimate"]

    def cluster(self, method: str, split: Split, K: int, seed: int) -> np.ndarray:
        (modality,) = modalities_of(METHODS[method], self.modalities).values()
        seed = derive_seed(self.args.seed, seed)
        return semi_supervised_kmeans(clean_features(modality), split.targets_N, K, seed=seed)

    def train(
        self, method: str, split: Split, K: int, seed: int, folder: Path, bar: tqdm
    ) -> DiscoveryTrainer:
        """Train to the last epoch, going on from the folder's checkpoint if there is one."""
        args, modalities = self.args, modalities_of(METHODS[method], self.modalities)
        config = changed(args.train, {**METHODS[method].changes, **self.settings.get(method, {})})
        trainer = DiscoveryTrainer(
            modalities,
            torch.from_numpy(split.targets_N).to(args.device),
            K,
            config,
            weights=branch_weights(modalities, split.targets_N, METHODS[method].balance, seed=args.seed),
            seed=derive_seed(args.seed, seed),
        )
        if (checkpoint := folder / "checkpoint.pt").is_file():
            trainer.load_state_dict(load_state(checkpoint, args.device))
        log = MetricsLog(folder / "metrics.csv", "epoch", trainer.done + 1)
        share = args.train.epochs / config.epochs  # of the bar, for a method with epochs of its own
        bar.update(trainer.done * share)
        for metrics in trainer:
            log.append(metrics)
            bar.set_postfix(loss=f"{metrics['loss']:.2f}", refresh=False)
            bar.update(share)
            if trainer.done % args.checkpoint_every == 0:
                save_state(checkpoint, trainer.state_dict())
        return trainer

    @property
    def shown(self) -> str:
        """The training whose assignments and figures are written, at the first split."""
        trained = [name for name in self.args.chosen if METHODS[name].trained]
        return "mm-gcd" if "mm-gcd" in trained else (trained or self.args.chosen)[-1]

    def show(self, trainer: DiscoveryTrainer, prediction: Prediction, split: Split, title: str) -> None:
        """Write assignments.csv and the figures."""
        confidence_N, clusters_N = prediction.fused_NK.cpu().max(1)
        arrays = (clusters_N.numpy(), confidence_N.numpy(), trainer.embed().cpu().numpy())
        found = Discovery(self.pairs, split, *arrays, title)
        write_atomic(self.run.folder / "assignments.csv", found.table().to_csv(index=False))
        for name, figure in found.figures().items():
            self.run.write_figure(name, figure)


def clusters_of(method: str, prediction: Prediction) -> dict[str, np.ndarray]:
    """Return the fused clusters and, of several branches, those of each alone: MM-GCD without fusion."""
    found = {method: prediction.fused_NK}
    if len(prediction.branches) > 1:
        found |= {f"{method}, {name} branch": values for name, values in prediction.branches.items()}
    return {name: values.argmax(1).cpu().numpy() for name, values in found.items()}


# Flags that say where to run, not what.
PLACES = ("resume", "threads", "device", "cache")


def load(args: Args) -> Pairs:
    """Return the pairs; ValueError for what would fail later."""
    pairs = load_pairs(args.pairs)
    split_pairs(pairs, known=args.known, known_names=args.known_names)
    return pairs


def encode(args: Args, pairs: Pairs) -> dict[str, Modality]:
    """Return the modalities on the device, with a bar for what is not cached."""
    with progress(leave=False) as bar:

        def tell(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        found = encode_pairs(pairs, args.features, args.cache, device=args.device, progress=tell)
    return {name: modality.to(args.device) for name, modality in found.items()}


def work(args: Args) -> None:
    torch.set_num_threads(args.threads)
    args, run, pairs = open_run("mmgcd_discover", args, PLACES, load)
    study = Study(args, run, pairs, encode(args, pairs))
    results = study()
    frame = frame_of(results)
    rows, minus = summarize(frame), differences(frame, "mm-gcd")
    protocol = {"data": args.pairs.data, "samples": len(pairs), "categories": pairs.class_names}
    run.write_results(protocol | {"splits": args.splits}, rows, mm_gcd_minus=minus, jobs=results)
    print(format_shares(rows, "std"))
    if minus:
        print("\nmm-gcd minus, with paired 95 % t-intervals over the splits:")
        print(format_shares(minus, "half_width", "+"))
    print(f"{run.folder}: config.json, results.json, assignments.csv, jobs/, figures/")
