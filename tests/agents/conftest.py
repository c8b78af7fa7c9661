"""What the tests of agents share."""

import pytest
from tiny import TINY

from agents.adanat.config import TrainingConfig


@pytest.fixture(scope="session")
def tiny() -> TrainingConfig:
    """Settings of a training that takes a moment."""
    return TINY
