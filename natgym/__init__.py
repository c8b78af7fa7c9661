"""natgym: masked-token image generators as Gymnasium environments; actions are decoding parameters."""

from gymnasium.envs.registration import register

from natgym import _former
from natgym._lazy import lazily

__version__ = "0.1.0"

_HOMES = {
    "AdaptivePolicy": "natgym.policies",
    "DecodeEnv": "natgym.env.single",
    "DecodeRules": "generators.rules",
    "DecodeVectorEnv": "natgym.env.vector",
    "Evaluator": "natgym.evaluation.evaluator",
    "FixedPolicy": "natgym.policies",
    "Schedule": "generators.schedules",
    "Task": "natgym.task",
    "balanced": "natgym.rollouts",
    "check_generator": "natgym.check",
    "check_policy": "natgym.check",
    "check_reward": "natgym.check",
    "evaluate": "natgym.evaluation.tables",
    "load_generator": "natgym._former",
    "make_reward": "natgym.rewards",
    "play": "natgym.rollouts",
    "rollout": "natgym.rollouts",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (strings all)
__getattr__, __dir__ = lazily(__name__, _HOMES)
_former.install()

# Of v0, Gymnasium itself says that it is deprecated and that v1 is to be used.
# No max_episode_steps: the T steps are the process's own horizon, so an episode terminates and is never
# truncated.
register(
    id="natgym/Decode-v1",
    entry_point="natgym.env.single:DecodeEnv",
    vector_entry_point="natgym.env.vector:DecodeVectorEnv",
)
