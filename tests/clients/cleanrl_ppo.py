"""PPO in one file, in CleanRL's manner, on 32 images at once."""

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics
from torch.nn import Linear, Sequential, Tanh
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

T, N = 4, 32
envs = gymnasium.make_vec("natgym:natgym/Decode-v1", num_envs=N, steps=T, observation="pooled")
statistics = RecordEpisodeStatistics(envs)
envs = NormalizeReward(statistics)
num_seen = gymnasium.spaces.flatdim(envs.single_observation_space)
torch.manual_seed(0)
actor = Sequential(Linear(num_seen, 64), Tanh(), Linear(64, 4))
critic = Sequential(Linear(num_seen, 64), Tanh(), Linear(64, 1))
log_std = torch.zeros(4, requires_grad=True)
weights = [*actor.parameters(), *critic.parameters(), log_std]
optimizer, start = torch.optim.Adam(weights, lr=3e-4, eps=1e-5), parameters_to_vector(weights)


def flat(observation):
    return torch.cat([observation[key].flatten(1).float() for key in sorted(observation)], 1)


def log_prob(seen, actions):
    return torch.distributions.Normal(actor(seen), log_std.exp()).log_prob(actions).sum(-1)


seen = flat(envs.reset(seed=0)[0])
for _ in range(8):
    rollout = []
    for _ in range(T):  # one episode: the environment resets in its last step
        with torch.no_grad():
            actions = torch.normal(actor(seen), log_std.exp())
            rollout.append([seen, actions, log_prob(seen, actions), critic(seen)[:, 0]])
        observation, reward, _, _, _ = envs.step(actions)
        rollout[-1].append(torch.from_numpy(reward).float())
        seen = flat(observation)
    seen_TN, actions_TN, log_prob_TN, value_TN, reward_TN = map(torch.stack, zip(*rollout, strict=True))
    return_TN = reward_TN.flip(0).cumsum(0).flip(0)
    for _ in range(4):
        ratio = (log_prob(seen_TN, actions_TN) - log_prob_TN).exp()
        gain = return_TN - value_TN
        gain = (gain - gain.mean()) / (gain.std() + 1e-8)
        loss = -torch.min(gain * ratio, gain * ratio.clamp(0.8, 1.2)).mean()
        loss = loss + 0.25 * (critic(seen_TN)[..., 0] - return_TN).square().mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(weights, 0.5)
        optimizer.step()

learned = parameters_to_vector(weights)
assert learned.isfinite().all() and not learned.equal(start)
print(f"{statistics.episode_count} episodes, mean reward {np.mean(statistics.return_queue):.3f}")
