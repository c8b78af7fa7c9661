"""One thread, and the shipped digits modules, loaded once."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch

from natgym.loading import load_companion, load_generator


class Task(NamedTuple):
    """Generator, tokenizer and classifier of one task."""

    generator: Any
    tokenizer: Any
    classifier: Any


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order; on networks this small a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> Task:
    generator, task = load_generator("digits")
    return Task(generator, *(load_companion(None, kind, task) for kind in ("tokenizer", "classifier")))
