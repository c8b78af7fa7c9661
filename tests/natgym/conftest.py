"""The shipped digits, their networks loaded once, and a browser."""

import pytest
from browser import browser as browser

from natgym.task import Task


@pytest.fixture(scope="session")
def digits() -> Task:
    return Task.load("digits")
