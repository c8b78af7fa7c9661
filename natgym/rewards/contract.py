"""What a reward is, and what one that learns has beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from generators.conditions import Condition

Source = Literal["rollout", "fresh"]


class Images:
    """Images in [0, 1] and the conditions that they are of; unpacked, these two.

    Args:
        images_BCHW: (B, C, H, W); or what returns them, called when somebody looks at them.
        condition: of B rows.
    """

    def __init__(self, images_BCHW: Tensor | Callable[[], Tensor], condition: Condition) -> None:
        self._given = images_BCHW
        self.condition = condition

    @cached_property
    def images_BCHW(self) -> Tensor:
        """The images, (B, C, H, W)."""
        return self._given() if callable(self._given) else self._given

    @property
    def num_images(self) -> int:
        """B."""
        return len(self.condition)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.images_BCHW, self.condition))

    def __getitem__(self, place: int) -> Any:
        return (self.images_BCHW, self.condition)[place]

    def rows(self, rows: Tensor) -> Images:
        """Select images by their indices."""
        return Images(self.images_BCHW[rows], self.condition[rows])


class Reward(Protocol):
    """Judge finished images: images (B, C, H, W) in [0, 1] and their conditions -> rewards (B,).

    Row i should depend on image i alone. A reward that looks at neighbors, as the papers' discriminator does
    with its norm over groups of 8 rows, makes rewards (never images) a matter of the batch. One that cannot
    judge an image alone says so in an attribute `needs_batch`, True; an environment with one row refuses it.
    """

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor: ...


@runtime_checkable
class LearningReward(Protocol):
    """A reward that is trained in turn with the policy, by `agents.adanat.Teacher`.

    What it may have beside `update`:

    `learns_from`: "fresh" (the default), then it is given minibatches of images that are drawn for it; or
    "rollout", then it is given all images of the policy's last rollout, once per update of the policy, and
    costs no image.
    `threshold`: the reward above which an image is judged to be real; how many unseen ones are judged rightly
    is then measured.
    `reset(seed)`: begin anew, with whatever is random taken from the seed; called before a training.
    `state_dict()`, `load_state_dict(state)`: with these a resumed training ends where an uninterrupted one
    does, to the bit. torch is seeded around each call of `update`.
    """

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor: ...

    def update(self, real: Images, fake: Images) -> dict[str, float]:
        """Take a training step on as many real images, drawn at random, as generated ones; return metrics."""
        ...


def learns_from(reward: Any) -> Source:
    """Return what a reward learns from.

    Raises:
        ValueError: it says something else.
    """
    source = getattr(reward, "learns_from", "fresh")
    if source not in get_args(Source):
        raise ValueError(f"learns_from {source!r} is not one of {', '.join(get_args(Source))}")
    return cast(Source, source)


def needs_batch(reward: Any) -> bool:
    """Whether a reward compares images, and so needs two or more."""
    return bool(getattr(reward, "needs_batch", False))


def reset(reward: Any, seed: int) -> None:
    """Let a reward begin anew, if it can."""
    if hasattr(reward, "reset"):
        reward.reset(seed)


def learned_state(reward: Any) -> dict[str, Any]:
    """Return what a reward has learned; nothing of one that does not learn or keeps it to itself."""
    return reward.state_dict() if hasattr(reward, "state_dict") else {}


def load_learned_state(reward: Any, state: dict[str, Any]) -> None:
    """Let a reward go on where `learned_state` was taken."""
    if hasattr(reward, "load_state_dict"):
        reward.load_state_dict(state)
