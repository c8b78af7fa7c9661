"""Policies that say in which order tokens are revealed: Plackett-Luce over those that a step reveals.

A step reveals n tokens, one after the other, each drawn from the masked ones that are left with a chance in
proportion to exp(logit); the log-probability of such a sequence is exact. MaskGIT's confidence with its
Gumbel noise is this distribution, of logits log p / tau_2. An action is scores that sort the tokens so.
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents.adanat.network import SeparatePolicy, prices_of
from agents.adanat.parts import TokenPolicyConfig
from agents.adanat.tokens import TokenTrunk
from generators.rules import DecodeRules
from natgym.observations import STATISTICS, Observation, as_likeliest

NEVER = -1e9  # the logit of a token that is revealed already; finite, so that differences are


class PlackettLuce(Distribution):
    """Which tokens are revealed, in which order; SB3's surface."""

    distribution: tuple[Tensor, Tensor]  # type: ignore[assignment]

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        return nn.Identity()

    def proba_distribution(self, latent_BM: Tensor) -> PlackettLuce:
        """Take logits (B, L), NEVER where not masked, and behind them how many are revealed, (B, L + 1)."""
        self.distribution = latent_BM[:, :-1], latent_BM[:, -1]
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability (B,) that the tokens come in the order of an action, as far as they are
        revealed."""
        logits_BL, count_B = self.distribution
        logits_BL = logits_BL.gather(1, _order(actions, logits_BL))
        left_BL = logits_BL.flip(1).logcumsumexp(1).flip(1)  # of the token at a place and all after it
        places_L = torch.arange(logits_BL.shape[1], device=logits_BL.device)
        return ((logits_BL - left_BL) * (places_L < count_B[:, None])).sum(1)

    def entropy(self) -> None:
        """Return None: it has no closed form."""

    def sample(self) -> Tensor:
        logits_BL, _ = self.distribution
        return self.drawn(torch.rand_like(logits_BL).clamp_min(torch.finfo(logits_BL.dtype).tiny))

    def drawn(self, uniform_BL: Tensor) -> Tensor:
        """Return the sample that uniforms in (0, 1) mean."""
        return _scores(self.distribution[0] - torch.log(-torch.log(uniform_BL)))

    def mode(self) -> Tensor:
        return _scores(self.distribution[0])

    def actions_from_params(self, latent_BM: Tensor, deterministic: bool = False) -> Tensor:
        return self.proba_distribution(latent_BM).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, latent_BM: Tensor) -> tuple[Tensor, Tensor]:
        actions = self.actions_from_params(latent_BM)
        return actions, self.log_prob(actions)


def _order(scores_BL: Tensor, logits_BL: Tensor) -> Tensor:
    """Return the positions of the masked tokens by falling score, ties by position, then the others."""
    masked_BL = logits_BL > NEVER / 2
    return scores_BL.masked_fill(~masked_BL, -torch.inf).argsort(dim=1, descending=True, stable=True)


def _scores(values_BL: Tensor) -> Tensor:
    """Return scores from 1 down to -1 that sort as the values do, whatever their size."""
    rank_BL = values_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return 1 - 2 * rank_BL.to(values_BL) / max(1, values_BL.shape[1] - 1)


class _Extractor(BaseFeaturesExtractor):
    """The trunk as SB3 wants it, and how many tokens are revealed."""

    def __init__(self, observation_space: Any, config: TokenPolicyConfig) -> None:
        num_tokens, width = observation_space["features"].shape
        super().__init__(observation_space, num_tokens + 1)
        self.trunk = TokenTrunk(config, num_tokens, width, prices_of(observation_space))
        self.sharpness = 0.0  # of the critic, which orders nothing
        self.order = None if config.order == "confidence" else DecodeRules.of(config.order, (1, 1))

    def forward(self, observations: Observation) -> Tensor:
        logits_BL = self.trunk(observations)
        if self.sharpness:
            masked_BL = observations["masked"].bool()
            statistics_BL3 = observations["features"][..., -len(STATISTICS) :].float()
            scores_BL = statistics_BL3[..., 0]
            if self.order is not None:
                scores_BL, _ = as_likeliest(self.order, statistics_BL3, masked_BL)
            logits_BL = logits_BL + self.sharpness * scores_BL
            logits_BL = logits_BL.masked_fill(~masked_BL, NEVER)
        return torch.cat([logits_BL, observations["reveal"]], dim=1)


class OrderPolicy(SeparatePolicy):
    """Order the tokens by Plackett-Luce; separate trunks of actor and critic.

    At the start its logits are `config.sharpness` times the log-probability of each token's likeliest code,
    or the score of it that `config.order` has: that rule's order, with a noise of temperature 1 / sharpness.
    """

    def __init__(self, *args: Any, config: TokenPolicyConfig | None = None, **kwargs: Any) -> None:
        self.widths = config or TokenPolicyConfig()
        super().__init__(*args, extractor=_Extractor, options={"config": self.widths}, **kwargs)
        actor: Any = self.pi_features_extractor
        actor.trunk.blind, actor.sharpness = self.widths.blind, self.widths.sharpness
        del self.log_std  # of the Gaussian that SB3 makes for scores
        self.action_dist, self.action_net = PlackettLuce(), nn.Identity()

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        return self.action_dist.proba_distribution(latent_pi)  # type: ignore[call-arg]
