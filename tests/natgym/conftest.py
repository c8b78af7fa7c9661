"""The shipped digits, their networks loaded once."""

import pytest

from natgym.task import Task


@pytest.fixture(scope="session")
def digits() -> Task:
    return Task.load("digits")
