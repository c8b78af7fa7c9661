"""PPO of stable-baselines3 on several ranks: the actions and the gradient of one rank with all rows."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.distributions import BernoulliDistribution, DiagGaussianDistribution
from torch import Tensor
from torch import distributed as dist
from torch.distributions import Bernoulli, Normal
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from agents.distributed.ranks import Ranks


def share_noise(policy: Any, ranks: Ranks) -> None:
    """Let a policy draw the actions of its rows as one rank with all rows draws them.

    Raises:
        ValueError: its actions are neither Gaussian nor Bernoulli.
    """
    drawn = policy.action_dist
    if type(drawn) is DiagGaussianDistribution:
        policy.action_dist = SharedGaussian(drawn.action_dim, ranks)
    elif type(drawn) is BernoulliDistribution:
        policy.action_dist = SharedBits(drawn.action_dims, ranks)
    else:
        raise ValueError(
            f"{type(drawn).__name__}: on several ranks actions are Gaussian or Bernoulli; train on one"
        )


class SharedGaussian(DiagGaussianDistribution):
    """SB3's, of whose sample each rank has its rows."""

    def __init__(self, action_dim: int, ranks: Ranks) -> None:
        super().__init__(action_dim)
        self.ranks = ranks

    def sample(self) -> Tensor:
        loc, scale = (self.ranks.repeated(one) for one in (self.distribution.loc, self.distribution.scale))
        return self.ranks.own(Normal(loc, scale).rsample())


class SharedBits(BernoulliDistribution):
    """SB3's, of whose sample each rank has its rows."""

    def __init__(self, action_dims: int, ranks: Ranks) -> None:
        super().__init__(action_dims)
        self.ranks = ranks

    def sample(self) -> Tensor:
        return self.ranks.own(Bernoulli(self.ranks.repeated(self.distribution.probs)).sample())


class AveragedGradient:
    """Before an optimizer's step: the gradient of the whole minibatch in place of that of a rank's rows.

    Args:
        max_norm: that it is clipped to then.
    """

    def __init__(self, ppo: Any, ranks: Ranks, max_norm: float) -> None:
        self.ppo, self.ranks, self.max_norm = ppo, ranks, max_norm

    def __call__(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        parameters = list(self.ppo.policy.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        whole = parameters_to_vector(gradients) * self.ppo.rollout_buffer.weight
        dist.all_reduce(whole)
        vector_to_parameters(whole / self.ranks.count, gradients)
        clip_grad_norm_(parameters, self.max_norm)
