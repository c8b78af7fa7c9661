"""A reward that a server says, by JSON over HTTP: for judges that need an environment of their own.

One POST for each batch of images, in 8 bits:

    {"images": [{"id": 7, "png": "iVBORw0KGgo...", "condition": "a red disc"}, ...]}

and the answer, each id once, in any order:

    {"rewards": [{"id": 7, "reward": 0.31}, ...]}

Ids number the images that one client has sent; the condition is a text or the name of a class. Only JSON is
read.
"""

from __future__ import annotations

import base64
import io
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from generators.conditions import Condition
from natgym.rewards.config import HTTPConfig, options_of
from natgym.task import Task

BUSY = (408, 425, 429, 500, 502, 503, 504)  # what may be over when it is asked again
MOST = 256  # bytes of an answer for each image, and as many as 16 images have beside
FORM = '{"rewards": [{"id": 0, "reward": 0.5}, ...]}'


class HTTPReward:
    """What a server says of each image, one finite number.

    The same images have the same reward, and a resumed training ends where an uninterrupted one does, as far
    as the server's answers are always the same.

    Args:
        config: where it is, and how long to wait.
        headers: sent along, for servers that ask who it is; they stand in no file.

    Raises:
        ValueError: there is no url.
    """

    def __init__(self, config: HTTPConfig, headers: Mapping[str, str] | None = None) -> None:
        if not config.url:
            raise ValueError("reward 'http' needs the url of its server: --rewards.http.url, or in rewards=")
        self.config, self.headers = config, dict(headers or {})
        self.sent = 0  # images so far

    @classmethod
    def from_task(cls, task: Task, **options: Any) -> HTTPReward:
        """Ask a server; nothing of the task is needed.

        Args:
            options: fields of `HTTPConfig`.
        """
        return cls(options_of(HTTPConfig, "http", options))

    def __call__(self, images_BCHW: Tensor, condition: Condition) -> Tensor:
        """Return rewards (B,), float64.

        Raises:
            ValueError: a pixel is not finite; the server refuses the request, or its answer is not one finite
                number for each image.
            OSError: it is away, late or busy, also when it was asked again.
        """
        if not bool(images_BCHW.isfinite().all()):
            raise ValueError("of the images some have pixels that are not finite; a PNG can't say so")
        pixels_BHWC = (images_BCHW.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        asked = [
            {"id": self.sent + row, "png": _png(pixels), "condition": name}
            for row, (pixels, name) in enumerate(zip(pixels_BHWC, condition.names, strict=True))
        ]
        self.sent += len(asked)
        size = self.config.batch
        batches = [asked[start : start + size] for start in range(0, len(asked), size)]
        with ThreadPoolExecutor(self.config.parallel) as pool:
            said = [reward for rewards in pool.map(self._ask, batches) for reward in rewards]
        return torch.tensor(said, dtype=torch.float64, device=images_BCHW.device)

    def _ask(self, batch: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return the rewards of a batch, in its order."""
        body = json.dumps({"images": batch}).encode()
        for number in range(self.config.retries + 1):
            try:
                return self._rewards(self._send(body, MOST * (len(batch) + 16)), [one["id"] for one in batch])
            except (OSError, HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError):
                    words = _first_line(error)
                    if error.code not in BUSY:
                        raise self._wrong(f"answers {error.code} {error.reason}{words}") from None
                last = error
            if number < self.config.retries:
                time.sleep(self.config.pause * 2**number)
        times = f"{number + 1} times" if number else "once"
        raise OSError(f"the reward's server {self.config.url} was asked {times}: {last}")

    def _send(self, body: bytes, most: int) -> bytes:
        """Return the answer to one request; OSError if it is not there in time."""
        end = time.monotonic() + self.config.timeout
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self.headers}
        request = urllib.request.Request(self.config.url, body, headers, method="POST")
        answer = b""
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=self.config.timeout) as response:
            whole = response.length  # unknown where it comes in chunks
            while len(answer) != whole and (part := response.read1(most + 1 - len(answer))):
                answer += part
                if len(answer) > most:
                    raise self._wrong(f"answers more than {most} bytes; say {FORM}")
                if time.monotonic() > end:
                    raise TimeoutError(f"no whole answer in {self.config.timeout:g} seconds")
            if whole is not None and len(answer) < whole:
                raise OSError(f"the answer broke off after {len(answer)} of {whole} bytes")
        return answer

    def _rewards(self, answer: bytes, ids: Sequence[int]) -> list[float]:
        """Return the rewards of some ids, in their order; ValueError if an answer has not just these."""
        try:
            pairs = [(one["id"], one["reward"]) for one in json.loads(answer)["rewards"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            shown = answer[:80].decode(errors="replace")
            raise self._wrong(f"answers {shown!r}; say {FORM}") from None
        said: dict[int, float] = {}
        for key, reward in pairs:
            if not _whole(key) or key in said or key not in ids:
                raise self._wrong(f"answers for image {key!r} of {ids[0]} to {ids[-1]}; each of these once")
            said[key] = _number(reward)
            if not math.isfinite(said[key]):
                raise self._wrong(f"says {reward!r:.40} of image {key}; a reward is a finite number")
        if missing := [key for key in ids if key not in said]:
            raise self._wrong(f"says nothing of image {missing[0]}, of {len(missing)} of {len(ids)} images")
        return [said[key] for key in ids]

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"the reward's server {self.config.url} {what}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Go nowhere else: a POST that is sent on arrives as another request."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _png(pixels_HWC: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[-1] == 1 else pixels_HWC).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def _first_line(error: urllib.error.HTTPError) -> str:
    """Return what a server says beside its number, if anything, as far as a line can hold it."""
    with error:
        lines = error.read(200).decode(errors="replace").strip().splitlines()
    return f": {lines[0]}" if lines else ""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> float:
    """Return a number of JSON; NaN of what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
