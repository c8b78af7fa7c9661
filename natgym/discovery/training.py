"""Training of MM-GCD as a stream of epochs, and its predictions; with one modality it is SimGCD.

All randomness of an epoch is a function of (seed, epoch), so that a resumed training ends where an
uninterrupted one does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generators.checks import taken
from generators.noise import derive_seed, seeded
from generators.training import refuse_divergence
from natgym.discovery.modality import Modality
from natgym.discovery.model import Branch, Heads, fuse, pair_prototypes
from natgym.discovery.objective import DiscoveryConfig, mm_gcd_terms


@dataclass(frozen=True, eq=False)
class Prediction:
    """Probabilities (N, K) of the categories, the old ones first.

    Attributes:
        branches: modality -> what its branch alone says; nonsense where a sample lacks the modality.
        fused_NK: the weighted mean over the branches that a sample has.
    """

    branches: dict[str, Tensor]
    fused_NK: Tensor


class DiscoveryTrainer:
    """Train one branch per modality to assign all samples to old and new categories.

    Args:
        modalities: name -> inputs of all N samples. One is SimGCD, two are MM-GCD, more are aligned pairwise.
        targets_N: old category 0..O-1 of a labelled sample, -1 of an unlabelled one.
        num_categories: K >= O prototypes; of K = O no category is new.
        config: hyper-parameters.
        weights: modality -> its share in the teacher and in the fusion; equal ones if None.
        prior_K: expected shares of the categories; uniform if None.
        seed: everything random follows from it.

    Modalities and targets are on one device already, and the training runs there.

    Raises:
        ValueError: K leaves no room for the old categories, no sample has a label, one has no modality, or
            the prior is none.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        targets_N: Tensor,
        num_categories: int,
        config: DiscoveryConfig | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        prior_K: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.modalities = dict(modalities)
        self.targets_N = targets_N
        self.config = config or DiscoveryConfig()
        self.seed = seed
        self.done = 0
        self.num_old = int(targets_N.max()) + 1
        self.num_categories = num_categories
        self.weights = dict(weights or dict.fromkeys(modalities, 1.0))
        prior_K = torch.ones(num_categories) if prior_K is None else prior_K
        device = targets_N.device
        self._check(prior_K)
        self.log_prior_K = (prior_K / prior_K.sum()).log().to(device)
        with seeded(derive_seed(seed, "branches")):
            self.branches = nn.ModuleDict(
                {
                    name: Branch(m.encoder(), m.num_features, num_categories, self.config.branch)
                    for name, m in modalities.items()
                }
            ).to(device)
        self.optimizer = torch.optim.AdamW(
            self.branches.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay
        )

    def _check(self, prior_K: Tensor) -> None:
        if self.num_old < 1:
            raise ValueError("no sample is labelled; discovery starts from some categories that are known")
        if self.num_categories < self.num_old:
            raise ValueError(
                f"num_categories {self.num_categories}: there are {self.num_old} old ones already"
            )
        if len(prior_K) != self.num_categories or not (prior_K > 0).all():
            raise ValueError(f"prior_K: give {self.num_categories} shares above 0")
        if not torch.stack([m.present_N for m in self.modalities.values()]).any(0).all():
            raise ValueError("a sample has none of the modalities; leave it out")
        if set(self.weights) != set(self.modalities) or not max(self.weights.values()) > 0:
            raise ValueError(f"weights {self.weights}: give one for each of {', '.join(self.modalities)}")

    def __iter__(self) -> Iterator[dict[str, float]]:
        """Yield the metrics of each remaining epoch."""
        while self.done < self.config.epochs:
            yield self.epoch()

    def epoch(self) -> dict[str, float]:
        """Pass over all samples once; return the epoch's number and the mean of each loss."""
        rng = torch.Generator().manual_seed(derive_seed(self.seed, self.done, "order"))
        order_N = torch.randperm(len(self.targets_N), generator=rng)
        number = math.ceil(len(order_N) / self.config.batch_size)
        sums: dict[str, float] = defaultdict(float)
        self.branches.train()
        with seeded(derive_seed(self.seed, self.done, "dropout"), self.targets_N.device):
            # Even batches: a short last one would have few others to contrast with.
            for index, rows_B in enumerate(order_N.tensor_split(number)):
                update = self.done * number + index + 1
                terms = self._step(rows_B, (self.done + index / number) / self.config.epochs, rng, update)
                for name, value in terms.items():
                    sums[name] += value / number
        self.done += 1
        return {"epoch": self.done, **sums}

    def _step(self, rows_B: Tensor, progress: float, rng: torch.Generator, update: int) -> dict[str, float]:
        rate = self.config.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms = self.losses(rows_B, progress, rng)
        loss = torch.stack([*terms.values()]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        refuse_divergence(update, loss.detach(), self.branches, rate)
        self.optimizer.step()
        return {"loss": loss.item()} | {name: value.item() for name, value in terms.items()}

    def losses(self, rows_B: Tensor, progress: float, rng: torch.Generator) -> dict[str, Tensor]:
        """Return the weighted terms of a batch's loss (`objective.mm_gcd_terms`).

        Args:
            rows_B: of the samples.
            progress: share of the training that is done.
            rng: of the views.
        """
        return mm_gcd_terms(
            {name: self._two_views(name, rows_B, rng) for name in self.modalities},
            {name: modality.present_N[rows_B] for name, modality in self.modalities.items()},
            self.targets_N[rows_B],
            log_prior_K=self.log_prior_K,
            weights=self.weights,
            progress=progress,
            config=self.config,
        )

    def _two_views(self, name: str, rows_B: Tensor, rng: torch.Generator) -> tuple[Heads, Heads]:
        both = self.branches[name](torch.cat(self.modalities[name].views(rows_B, rng)))
        first, second = zip(*(values.chunk(2) for values in both), strict=True)
        return Heads(*first), Heads(*second)

    @torch.no_grad()
    def predict(self) -> Prediction:
        """Return the probabilities of all samples, from their clean inputs."""
        self.branches.eval()
        branches: dict[str, Tensor] = {}
        for name, modality in self.modalities.items():
            branch = self._branch(name)
            cosines = [branch(modality.clean(rows)).cosines_BK for rows in self._rows()]
            branches[name] = (torch.cat(cosines) / self.config.student_temperature).softmax(-1)
        present = {name: modality.present_N for name, modality in self.modalities.items()}
        if not self.config.output_alignment:  # then nothing has tied the branches' new prototypes
            branches = self._paired(branches, present)
        return Prediction(branches, fuse(branches, present, self.weights))

    @torch.no_grad()
    def embed(self) -> Tensor:
        """Return the branches' features side by side, (N, sum of widths): each of length 1, or 0."""
        self.branches.eval()
        features = []
        for name, modality in self.modalities.items():
            branch = self._branch(name)
            h_NW = torch.cat([branch.features(modality.clean(rows)) for rows in self._rows()])
            features.append(nn.functional.normalize(h_NW, dim=-1) * modality.present_N[:, None])
        return torch.cat(features, -1)

    def _branch(self, name: str) -> Branch:
        branch = self.branches[name]
        assert isinstance(branch, Branch)
        return branch

    def _rows(self, batch_size: int = 1024) -> tuple[Tensor, ...]:
        return torch.arange(len(self.targets_N)).split(batch_size)

    def _paired(self, branches: dict[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return probabilities with the new prototypes of all branches in the order of the first one's."""
        first, *others = branches
        paired = {first: branches[first]}
        for name in others:
            both_N = present[first] & present[name]
            order_K = pair_prototypes(branches[first][both_N], branches[name][both_N], self.num_old)
            paired[name] = branches[name][:, torch.from_numpy(order_K)]
        return paired

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs beside data and config."""
        return {
            "done": self.done,
            "branches": self.branches.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.done = taken(state["done"], self.config.epochs)
        self.branches.load_state_dict(state["branches"])
        self.optimizer.load_state_dict(state["optimizer"])
