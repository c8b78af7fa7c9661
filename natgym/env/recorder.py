"""The image being revealed, step by step: an animation and a strip, written by Pillow.

Gymnasium's `RecordVideo` misses the last frame of an environment that resets in the same step, which here is
the finished image.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorWrapper
from PIL import Image

from generators.files import write_atomic
from generators.tokenizers import Tokenizer
from natgym.env.rendering import reveal, reveal_ids
from natgym.env.vector import DecodeVectorEnv
from natgym.rollouts import Rollout

Frame = Sequence[np.ndarray]  # the images (H, W, 3) uint8 of some rows at one moment
_GAP = 4  # pixels between images
_HOLD = 4  # frames for which an animation shows the finished images


def strip(frames: Sequence[Frame]) -> np.ndarray:
    """Return one image (H, W, 3): a line for each image, a column for each moment."""
    padded = [
        [np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for picture in frame]
        for frame in frames
    ]
    whole = np.concatenate([np.concatenate(column) for column in padded], axis=1)
    return whole[:-_GAP, :-_GAP]


def save_film(path: Path | str, frames: Sequence[Frame], *, fps: float = 4) -> None:
    """Write an animation (.gif, the images side by side) or a strip (.png).

    Raises:
        ValueError: no frames, another ending, or the file exists.
    """
    path = Path(path)
    if not frames or path.suffix not in (".gif", ".png"):
        raise ValueError(f"{path}: {len(frames)} frames; give at least one and a name ending in .gif or .png")
    if path.exists():
        raise ValueError(f"{path} exists; choose another name")
    data = io.BytesIO()
    if path.suffix == ".png":
        Image.fromarray(strip(frames)).save(data, "png")
    else:
        shots = [Image.fromarray(strip([[picture] for picture in frame])) for frame in frames]
        durations_ms = [1000 / fps] * (len(shots) - 1) + [_HOLD * 1000 / fps]
        shots[0].save(data, "gif", save_all=True, append_images=shots[1:], duration=durations_ms, loop=0)
    write_atomic(path, data.getvalue())


def film(drawn: Rollout, tokenizer: Tokenizer, *, rows: int = 8) -> list[Frame]:
    """Return the frames of the first rows of a rollout that kept its trail; at first all is masked but what
    was given.

    A revealed token looks as it does in the finished image, whatever neighbors a tokenizer mixes in.
    """
    if drawn.ids_TNL is None:
        raise ValueError("the rollout kept no trail; draw it with trail=True")
    mask_id = tokenizer.codebook_size
    shown_TNL = drawn.ids_TNL[:, :rows]
    begun_NL = shown_TNL[-1].masked_fill(drawn.revealed_at_NL[:rows] >= 0, mask_id)
    moments = [begun_NL, *shown_TNL]
    return [list(reveal_ids(tokenizer, ids_BL, mask_id, shown_TNL[-1])) for ids_BL in moments]


class Tape:
    """Write each episode's frames as `episode-<number>.gif` and `.png` into a folder of their own.

    Raises:
        ValueError: the folder holds episodes already, or the environment doesn't render.
    """

    def __init__(self, folder: Path | str, render_mode: str | None, fps: float) -> None:
        self.folder = Path(folder)
        self.fps = fps
        self.episode = 0
        self.frames: list[Frame] = []
        if render_mode != "rgb_array":
            raise ValueError(
                f'render_mode {render_mode!r}: make the environment with render_mode="rgb_array"'
            )
        if any(self.folder.glob("episode-*")):
            raise ValueError(f"{folder} holds episodes already; choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)

    def begin(self, frame: Frame) -> None:
        """Start an episode with its first frame; an unfinished one is dropped."""
        self.frames = [frame]

    def add(self, frame: Frame, *, last: bool) -> None:
        """Add what a step revealed; after the last one write the files and go on with the next episode."""
        self.frames.append(frame)
        if last:
            for suffix in ("gif", "png"):
                path = self.folder / f"episode-{self.episode:04d}.{suffix}"
                save_film(path, self.frames, fps=self.fps)
            self.episode += 1
            self.frames = self.frames[:1]  # whoever knows how the next one begins says so


class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Record the one-image environment; see `Tape`."""

    def __init__(self, env: gymnasium.Env[Any, Any], folder: Path | str, *, fps: float = 4) -> None:
        super().__init__(env)
        self.tape = Tape(folder, env.render_mode, fps)

    def reset(self, **arguments: Any) -> Any:
        """Reset, and begin a recording."""
        result = self.env.reset(**arguments)
        self.tape.begin([self.env.render()])  # type: ignore[list-item]
        return result

    def step(self, action: Any) -> Any:
        """Step, and record what is revealed."""
        result = self.env.step(action)
        self.tape.add([self.env.render()], last=result[2])  # type: ignore[list-item]
        return result


class VectorRecorder(VectorWrapper):
    """Record the first rows of the vector environment, also across its resets; see `Tape`."""

    def __init__(self, env: Any, folder: Path | str, *, rows: int = 8, fps: float = 4) -> None:
        super().__init__(env)
        self.tape = Tape(folder, env.render_mode, fps)
        self.rows = rows

    def reset(self, **arguments: Any) -> Any:
        """Reset, and begin a recording."""
        result = self.env.reset(**arguments)
        self.tape.begin(self._frame())
        return result

    def step(self, actions: Any) -> Any:
        """Step, and record what is revealed."""
        result = self.env.step(actions)
        ended = bool(result[2].all())
        self.tape.add(self._frame(), last=ended)
        env = self.env.unwrapped
        if ended and isinstance(env, DecodeVectorEnv) and env.state is not None:
            # It renders what is finished until the next step, but has begun the next episode.
            begun = reveal(env.tokenizer, env.state, env.generator.mask_id)
            self.tape.begin(list(begun)[: self.rows])
        return result

    def _frame(self) -> Frame:
        return self.env.render()[: self.rows]  # type: ignore[index, return-value]
