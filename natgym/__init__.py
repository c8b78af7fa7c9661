"""natgym: masked-token image generators as Gymnasium environments; actions are decoding parameters."""

from gymnasium.envs.registration import register

# No max_episode_steps: the T steps are the process's own horizon, so an episode terminates and is never
# truncated.
register(
    id="natgym/Decode-v0",
    entry_point="natgym.env:DecodeEnv",
    vector_entry_point="natgym.env:DecodeVectorEnv",
)
