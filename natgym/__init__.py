"""natgym: masked-token image generators as Gymnasium environments; actions are decoding parameters."""

import warnings
from importlib.util import find_spec
from pathlib import Path

from gymnasium.envs.registration import register

from natgym import _former
from natgym._lazy import lazily

__version__ = "0.1.0"


def _warn_of_others() -> None:
    """Warn if another distribution's package is found in the place of ours; OpenAI's SDK has an `agents`."""
    for name in ("agents", "generators"):
        place = getattr(find_spec(name), "origin", None)
        if place and __name__ not in Path(place).read_text(encoding="utf-8", errors="replace"):
            warnings.warn(
                f"{place} is not natgym's `{name}` but another's; install natgym into an environment "
                "of its own, or put the folder that holds it first on PYTHONPATH",
                RuntimeWarning,
                stacklevel=2,
            )


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
    "from_pretrained": "natgym.hub.exchange",
    "load_generator": "natgym._former",
    "make_reward": "natgym.rewards",
    "play": "natgym.rollouts",
    "push_to_hub": "natgym.hub.exchange",
    "rollout": "natgym.rollouts",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (strings all)
__getattr__, __dir__ = lazily(__name__, _HOMES)
_former.install()
_warn_of_others()

# Of v0, Gymnasium itself says that it is deprecated and that v1 is to be used.
# No max_episode_steps: the T steps are the process's own horizon, so an episode terminates and is never
# truncated.
register(
    id="natgym/Decode-v1",
    entry_point="natgym.env.single:DecodeEnv",
    vector_entry_point="natgym.env.vector:DecodeVectorEnv",
)
