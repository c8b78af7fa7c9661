"""A discriminator with one optimum: logistic regression on features and on their products.

Like the witness of the MMD it is adversarial, since it is fitted again on the policy's images after each
update, at no further image; and like it is no matter of luck, since its loss is strictly convex and fitted
to the end. It sees means and covariances, as the Frechet distance does, of the first principal components of
the real images' features, whose products would be too many else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.conditions import Condition
from generators.images import ImageRows
from natgym.rewards.config import QuadraticConfig, options_of
from natgym.rewards.contract import Images
from natgym.rewards.standardized import StandardizedFeatures
from natgym.task import Task

ITERATIONS = 200  # of L-BFGS, which begins where the last fit ended


class QuadraticReward:
    """Probability that an image is real and not the policy's, in (0, 1); a half for all before the first fit.

    Args:
        extractor: of the features.
        real: the real images that set the units and the principal components.
        config: options.
    """

    learns_from = "rollout"
    threshold = 0.5

    def __init__(self, extractor: Any, real: ImageRows, config: QuadraticConfig | None = None) -> None:
        self.config = config or QuadraticConfig()
        self.features = StandardizedFeatures(extractor, real)
        real_Nd = self.features.real_Nd
        components = min(self.config.components, real_Nd.shape[1])
        eigenvectors_dd = torch.linalg.eigh(real_Nd.T @ real_Nd / len(real_Nd))[1]
        self.basis_dk = eigenvectors_dd[:, -components:]
        self.rows_P, self.columns_P = torch.triu_indices(components, components, device=real_Nd.device)
        self.reset(0)

    @classmethod
    def from_task(cls, task: Task, **options: Any) -> QuadraticReward:
        """Look through the task's reward extractor.

        Args:
            options: fields of `QuadraticConfig`.
        """
        config = options_of(QuadraticConfig, "quadratic", options)
        return cls(task.reward_extractor, task.images("train"), config)

    def reset(self, seed: int) -> None:
        """Forget all images; nothing is random."""
        width = self.basis_dk.shape[1] + len(self.rows_P)
        self.weights_W = self.basis_dk.new_zeros(width + 1)
        self.batches: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        """Return rewards (B,), each of its image alone."""
        return (self._inputs(images_BCHW) @ self.weights_W).sigmoid()

    def update(self, real: Images, fake: Images) -> dict[str, float]:
        """Fit again, on the real and the generated images of the last updates; return loss and accuracy."""
        batch = self._inputs(real.images_BCHW), self._inputs(fake.images_BCHW)
        self.batches = [*self.batches, batch][-self.config.window :]
        real_NW, fake_NW = (torch.cat(inputs) for inputs in zip(*self.batches, strict=True))
        weights_W = self.weights_W.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weights_W], max_iter=ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            cost = F.softplus(-real_NW @ weights_W).mean() + F.softplus(fake_NW @ weights_W).mean()
            return cost / 2 + self.config.decay / 2 * weights_W[:-1].square().sum()

        def closure() -> Tensor:
            optimizer.zero_grad()
            (value := loss()).backward()
            return value

        optimizer.step(closure)  # type: ignore[arg-type]
        self.weights_W = weights_W.detach()
        with torch.no_grad():
            right = [(real_NW @ weights_W > 0).float().mean(), (fake_NW @ weights_W < 0).float().mean()]
            return {"discriminator_loss": loss().item(), "discriminator_accuracy": sum(right).item() / 2}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, and what they were fitted on."""
        return {"weights": self.weights_W, "batches": [list(batch) for batch in self.batches]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.weights_W = state["weights"]
        self.batches = [(real, fake) for real, fake in state["batches"]]

    @torch.no_grad()
    def _inputs(self, images_BCHW: Tensor) -> Tensor:
        """Return components, their products and 1, (B, W)."""
        x_Bk = self.features(images_BCHW) @ self.basis_dk
        products_BP = x_Bk[:, self.rows_P] * x_Bk[:, self.columns_P]
        return torch.cat([x_Bk, products_BP, torch.ones_like(x_Bk[:, :1])], 1)
