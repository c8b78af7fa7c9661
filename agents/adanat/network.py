"""AdaNAT's policy network (arXiv 2409.00342, section 3.2) on any token grid, as an SB3 features extractor.

The trunk reads the generator's features and the step, and the action played before where actions are
smoothed; a linear head on it gives the action's mean or the value. Actor and critic share nothing. The head
starts at zero, so that training starts at the action map's schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from agents.adanat.parts import PolicyConfig
from agents.adanat.parts import small_policy as small_policy
from natgym.observations import Observation

CHUNK_BYTES = 2**26  # of features in float32 that a policy reads at once
ON_A_GPU = 8  # times as many, which fewer would leave idle


class AdaptiveNorm(nn.Module):
    """LayerNorm whose shift and scale come from the step's embedding; starts as a plain LayerNorm."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition_BC: Tensor) -> Tensor:
        modulation = self.modulation(F.silu(condition_BC))
        if x.ndim == 3:
            modulation = modulation[:, None]
        shift, scale = modulation.chunk(2, dim=-1)
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class StepEmbedding(nn.Module):
    """Sinusoid [cos, sin] of the step, frequencies 10000^(-i / half), then two linear layers with SiLU."""

    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.fc1, self.fc2 = nn.Linear(frequencies, width), nn.Linear(width, width)
        for layer in (self.fc1, self.fc2):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, step_B: Tensor) -> Tensor:
        half = self.frequencies // 2
        powers = torch.exp(-math.log(10000) * torch.arange(half, device=step_B.device) / half)
        angles = step_B[:, None] * powers
        return self.fc2(F.silu(self.fc1(torch.cat([angles.cos(), angles.sin()], dim=-1))))


def place_of(price_B1: Tensor, prices: Sequence[float]) -> Tensor:
    """Return where prices lie in their range on a logarithmic scale, (B, 1), from -1 to 1."""
    lowest, highest = (math.log(one) for one in prices)
    return 2 * (price_B1.log() - lowest) / (highest - lowest) - 1


def prices_of(observation_space: Any) -> tuple[float, float] | None:
    """Return the range of prices that an observation shows; None of one that shows none."""
    box = observation_space.spaces.get("price")
    return None if box is None else (float(box.low[0]), float(box.high[0]))


class Trunk(nn.Module):
    """Observations with features (B, L, D) and step (B, 1) -> (B, hidden[1]).

    Args:
        config: widths.
        grid: rows and columns of the features.
        features_width: D.
        num_smoothed: k of `previous_action` (B, k), which is embedded like the step; 0 if there is none.
        blind: see nothing of the features, as the actor of a blind policy does and no critic.
        prices: range of `price` (B, 1), which is embedded like the step; None if there is none.
    """

    def __init__(
        self,
        config: PolicyConfig,
        grid: tuple[int, int],
        features_width: int,
        num_smoothed: int = 0,
        blind: bool = False,
        prices: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.blind, self.prices, C = grid, blind, prices, config.width
        self.embed = nn.Linear(features_width, C) if features_width != C else nn.Identity()
        self.step = StepEmbedding(config.frequencies, C)
        self.norm1 = AdaptiveNorm(C, C)
        self.depthwise = nn.Conv2d(C, C, 3, stride=2, padding=1, groups=C)
        self.pointwise = nn.Conv2d(C, config.channels, 1)
        cells = ((grid[0] + 1) // 2) * ((grid[1] + 1) // 2)
        self.fc1 = nn.Linear(config.channels * cells, config.hidden[0])
        self.norm2 = AdaptiveNorm(config.hidden[0], C)
        self.fc2 = nn.Linear(config.hidden[0], config.hidden[1])
        self.norm3 = AdaptiveNorm(config.hidden[1], C)
        for layer in (self.embed, self.fc1, self.fc2):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.previous = nn.Linear(num_smoothed, C) if num_smoothed else None
        self.price = nn.Linear(1, C) if prices else None

    def forward(self, observation: Observation) -> Tensor:
        condition_BC = self.step(observation["step"][:, 0])
        if self.previous is not None:
            condition_BC = condition_BC + self.previous(observation["previous_action"])
        if self.price is not None and self.prices is not None:
            condition_BC = condition_BC + self.price(place_of(observation["price"], self.prices))
        features = observation["features"]
        if self.blind:
            features = torch.zeros_like(features)
        x = self.norm1(self.embed(features), condition_BC)
        x = rearrange(x, "b (h w) c -> b c h w", h=self.grid[0])
        x = F.gelu(self.pointwise(F.gelu(self.depthwise(x)))).flatten(1)
        x = F.gelu(self.norm2(self.fc1(x), condition_BC))
        return F.gelu(self.norm3(self.fc2(x), condition_BC))


class TrunkExtractor(BaseFeaturesExtractor):
    """The trunk as SB3 wants it: dict observations in, one vector out."""

    def __init__(self, observation_space: Any, config: PolicyConfig, grid: tuple[int, int]) -> None:
        super().__init__(observation_space, config.hidden[1])
        smoothed = observation_space.spaces.get("previous_action")
        num_smoothed = 0 if smoothed is None else smoothed.shape[0]
        width, prices = observation_space["features"].shape[1], prices_of(observation_space)
        self.trunk = Trunk(config, grid, width, num_smoothed, prices=prices)

    def forward(self, observations: Observation) -> Tensor:
        return self.trunk(observations)


def rows_at_once(shape: Sequence[int], device: torch.device) -> int:
    """Return how many rows with features of a shape a policy reads at once."""
    most = CHUNK_BYTES * (1 if device.type == "cpu" else ON_A_GPU)
    return max(1, most // (4 * math.prod(shape)))


def in_chunks(function: Callable[[Observation], Any], observation: Observation) -> list[Any]:
    """Return what a function says of an observation, in parts of so many bytes of features; a smaller is one.

    No float32 copy of a whole batch of half-precision features is made then. Of several parts nothing is kept
    for the gradient but what they were made of: each is computed again when its gradient is asked for, so
    that a minibatch of any size takes the memory of a part, and its gradient is the same to rounding.
    """
    features = observation["features"]
    rows = rows_at_once(features.shape[1:], features.device)
    if len(features) <= rows:
        return [function(observation)]
    chunks = zip(*(values.split(rows) for values in observation.values()), strict=True)
    parts = (dict(zip(observation, chunk, strict=True)) for chunk in chunks)
    if not torch.is_grad_enabled():
        return [function(part) for part in parts]
    return [checkpoint(function, part, use_reentrant=False) for part in parts]


class SeparatePolicy(MultiInputActorCriticPolicy):
    """An SB3 policy whose actor and critic share nothing, which reads device tensors in chunks.

    Args:
        extractor: class of both features extractors, made with `options`.
    """

    def __init__(self, *args: Any, extractor: Any, options: dict[str, Any], **kwargs: Any) -> None:
        kwargs |= {
            "net_arch": [],
            "ortho_init": False,  # SB3's default would re-initialise what the extractors have
            "share_features_extractor": False,
            "features_extractor_class": extractor,
            "features_extractor_kwargs": options,
        }
        super().__init__(*args, **kwargs)
        self._reference: list[SeparatePolicy] = []  # in a list: none of this policy's weights

    def hold_near(self, reference: SeparatePolicy) -> None:
        """Measure the divergence from another policy's actions in place of the entropy."""
        self._reference = [reference.requires_grad_(False)]
        reference.set_training_mode(False)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log-probabilities and entropies, (B,) each.

        Entropies of a policy that is held near a reference are minus KL(policy || reference), in nats, both
        at this policy's standard deviation.
        """
        values, log_probs, entropies = super().evaluate_actions(obs, actions)
        for reference in self._reference:
            now: Any = self.action_dist.distribution
            with torch.no_grad():
                then = torch.cat(in_chunks(reference.means, obs))
            held = Normal(then, now.scale) if isinstance(now, Normal) else Bernoulli(logits=then)
            entropies = -kl_divergence(now, held).sum(1)
        return values, log_probs, entropies

    def means(self, obs: Any) -> Tensor:
        """Return the actions' means (B, k), or of bits their log-odds."""
        drawn: Any = self.get_distribution(obs).distribution
        return drawn.loc if isinstance(drawn, Normal) else drawn.logits

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        """Return the actor's and the critic's features, in chunks."""
        parts = in_chunks(super().extract_features, obs)
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def predict_values(self, obs: Any) -> Tensor:
        """Return the critic's values, in chunks."""
        return torch.cat(in_chunks(super().predict_values, obs))

    def obs_to_tensor(self, observation: Any) -> tuple[Any, bool]:
        """Take device tensors as they are, which SB3's own would copy through numpy."""
        if all(isinstance(value, Tensor) for value in observation.values()):
            return {key: value.to(self.device) for key, value in observation.items()}, True
        return super().obs_to_tensor(observation)


class AdaNATPolicy(SeparatePolicy):
    """Gaussian policy of fixed standard deviation; separate trunks of actor and critic, heads from zero."""

    def __init__(self, *args: Any, config: PolicyConfig, grid: tuple[int, int], **kwargs: Any) -> None:
        options = {"config": config, "grid": grid}
        super().__init__(*args, extractor=TrunkExtractor, options=options, **kwargs)
        self.widths = config
        actor: Any = self.pi_features_extractor
        actor.trunk.blind = config.blind  # SB3 builds both extractors alike
        for parameter in (*self.action_net.parameters(), *self.value_net.parameters()):
            nn.init.zeros_(parameter)
        self.log_std.requires_grad_(False)
