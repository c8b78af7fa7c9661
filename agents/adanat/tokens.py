"""A policy that says of each token whether the step reveals it, as an SB3 actor-critic policy.

Each token's bit is drawn by itself (Bernoulli), so that the log-probability of an action is exact. The
network reads all tokens together, by attention; it starts as a rule that reveals what it is sure of.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from agents.adanat.network import SeparatePolicy, place_of, prices_of
from agents.adanat.parts import TokenPolicyConfig
from generators.decoding import ascending
from generators.layers import Block
from generators.rules import DecodeRules
from natgym.observations import STATISTICS, Observation, as_likeliest

_HEADS = 4


class TokenTrunk(nn.Module):
    """Observations with `statistics` -> one number for each token, (B, L), 0 at the start.

    Args:
        config: widths.
        num_tokens: L.
        features_width: of what is shown of a token, the STATISTICS last.
        prices: range of the `price` that is shown; None if there is none.

    Attributes:
        blind: see nothing but which tokens are masked, the step and the price, as the actor of a blind policy
            does.
    """

    def __init__(
        self,
        config: TokenPolicyConfig,
        num_tokens: int,
        features_width: int,
        prices: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.blind, self.prices, wide = False, prices, config.width
        self.embed = nn.Linear(features_width + 3 + (prices is not None), wide)
        self.place = nn.Parameter(0.02 * torch.randn(num_tokens, wide))
        self.blocks = nn.ModuleList(Block(wide, _HEADS, 2.0, True) for _ in range(config.depth))
        self.norm = nn.LayerNorm(wide)
        self.head = nn.Linear(wide, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, observation: Observation) -> Tensor:
        features = observation["features"].float()
        if self.blind:
            features = torch.zeros_like(features)
        masked_BL = observation["masked"].float()
        share_BL = masked_BL.mean(1, keepdim=True).expand_as(masked_BL)
        step_BL = observation["step"].expand_as(masked_BL)
        told = [masked_BL, share_BL, 0.1 * step_BL]
        if self.prices is not None:
            told.append(place_of(observation["price"], self.prices).expand_as(masked_BL))
        more = torch.stack(told, dim=-1)
        known = F.layer_norm(features, features.shape[-1:])
        known = torch.cat([known[..., : -len(STATISTICS)], features[..., -len(STATISTICS) :], more], dim=-1)
        x = self.embed(known) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))[..., 0]


class _Extractor(BaseFeaturesExtractor):
    """The trunk as SB3 wants it."""

    def __init__(self, observation_space: Any, config: TokenPolicyConfig) -> None:
        num_tokens, width = observation_space["features"].shape
        super().__init__(observation_space, num_tokens)
        self.trunk = TokenTrunk(config, num_tokens, width, prices_of(observation_space))
        self.sharpness, self.slope = config.sharpness, config.slope or math.inf
        self.start: DecodeRules | None = None  # of the actor alone

    def forward(self, observations: Observation) -> Tensor:
        moved_BL = self.trunk(observations)
        if self.start is None:
            return moved_BL
        masked_BL = observations["masked"].bool()
        places_BL = places_beyond(self.start, observations["features"], masked_BL)
        logits_BL = moved_BL + (self.slope * places_BL).clamp(-self.sharpness, self.sharpness)
        # A bit that means nothing is the same coin for every policy: it moves no probability ratio.
        return logits_BL.masked_fill(~masked_BL, 0)


def places_beyond(rules: DecodeRules, features_BLD: Tensor, masked_BL: Tensor) -> Tensor:
    """Return by how many places of their order rules would reveal a token if each were drawn as its likeliest
    code, (B, L): from 0.5 for the last that they reveal upwards, from -0.5 for the first that they don't
    downwards; below these of what is not masked.

    Args:
        rules: with a reveal rule that counts by itself.
        features_BLD: the STATISTICS last.
    """
    scores_BL, wanted_B = as_likeliest(rules, features_BLD[..., -len(STATISTICS) :], masked_BL)
    masked_B = masked_BL.sum(-1)
    left_B = rules.allowed_counts(wanted_B, masked_B, masked_B)
    place_BL = ascending(scores_BL, masked_BL).argsort(-1)
    return (place_BL + 0.5 - left_B[:, None]).masked_fill(~masked_BL, -0.5 - masked_BL.shape[1])


class TokenPolicy(SeparatePolicy):
    """Reveal each token with a probability of its own; separate trunks of actor and critic.

    At the start these are the rule `config.start`, each of whose bits may flip: what the rule reveals has the
    log-odds `sharpness`, all else minus that, or less of either near where the rule stops.
    """

    def __init__(self, *args: Any, config: TokenPolicyConfig | None = None, **kwargs: Any) -> None:
        self.widths = config or TokenPolicyConfig()
        super().__init__(*args, extractor=_Extractor, options={"config": self.widths}, **kwargs)
        actor: Any = self.pi_features_extractor
        actor.trunk.blind = self.widths.blind
        actor.start = DecodeRules.of(self.widths.start, (1, 1))
        self.action_net = nn.Identity()  # the trunk has the logits
