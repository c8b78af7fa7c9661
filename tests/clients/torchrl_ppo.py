"""PPO of TorchRL on 32 images at once."""

import gymnasium
import torch
from tensordict.nn import InteractionType, TensorDictModule, TensorDictSequential
from tensordict.nn.distributions import NormalParamExtractor
from torch import nn
from torch.nn.utils import parameters_to_vector
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, RewardSum, TransformedEnv
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE


class Flat(nn.Module):
    def forward(self, features, step):
        return torch.cat([features.flatten(-2), step], -1)


envs = gymnasium.make_vec("natgym:natgym/Decode-v1", num_envs=32, steps=4, observation="pooled")
env = TransformedEnv(GymWrapper(envs), RewardSum())
space = envs.single_action_space
width = gymnasium.spaces.flatdim(envs.single_observation_space["features"]) + 1
torch.manual_seed(0)
flat = TensorDictModule(Flat(), ["features", "step"], ["seen"])
net = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 8), NormalParamExtractor())
actor = ProbabilisticActor(
    TensorDictSequential(flat, TensorDictModule(net, ["seen"], ["loc", "scale"])),
    in_keys=["loc", "scale"],
    distribution_class=TanhNormal,
    distribution_kwargs={"low": torch.tensor(space.low), "high": torch.tensor(space.high)},
    return_log_prob=True,
    default_interaction_type=InteractionType.RANDOM,
)
critic = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))
critic = TensorDictSequential(flat, ValueOperator(critic, in_keys=["seen"]))
advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
loss = ClipPPOLoss(actor, critic)
optimizer, start = torch.optim.Adam(loss.parameters(), 3e-4), parameters_to_vector(loss.parameters())

returns = []
for batch in Collector(env, actor, frames_per_batch=128, total_frames=1024):
    returns.append(batch["next", "episode_reward"][batch["next", "done"]])
    for _ in range(4):
        advantage(batch)
        losses = loss(batch)
        optimizer.zero_grad()
        (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
        optimizer.step()

weights, returns = parameters_to_vector(loss.parameters()), torch.cat(returns)
assert weights.isfinite().all() and not weights.equal(start)
print(f"{len(returns)} episodes, mean reward {returns.mean():.3f}")
