"""What the tests of agents share."""

import pytest
from tiny import TINY

from agents.adanat.config import TrainingConfig


@pytest.fixture(scope="session")
def tiny() -> TrainingConfig:
    """Settings of a training that takes a moment."""
    return TINY


@pytest.fixture(autouse=True)
def searcher(request: pytest.FixtureRequest) -> None:
    """Skip what would search by tpe where the library for it is not installed."""
    call = getattr(request.node, "callspec", None)  # of those with parameters
    if call is not None and "tpe" in call.params.values():
        pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
