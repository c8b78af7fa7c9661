"""natgym: masked-token image generators as Gymnasium environments; actions are decoding parameters."""

from gymnasium.envs.registration import register

# Of v0, Gymnasium itself says that it is deprecated and that v1 is to be used.
# No max_episode_steps: the T steps are the process's own horizon, so an episode terminates and is never
# truncated.
register(
    id="natgym/Decode-v1",
    entry_point="natgym.env:DecodeEnv",
    vector_entry_point="natgym.env:DecodeVectorEnv",
)
