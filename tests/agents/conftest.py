"""Settings of trainings that take a moment."""

import pytest

from agents.adanat.config import TrainingConfig
from agents.adanat.network import PolicyConfig


@pytest.fixture(scope="session")
def tiny() -> TrainingConfig:
    """Three updates of 32 images at two steps, on a small policy network."""
    return TrainingConfig.of(
        steps=2,
        updates=3,
        trajectories=32,
        epochs=1,
        minibatch=32,
        discriminator_batch=16,
        warmup=1,
        evaluate_every=2,
        evaluation_images=40,
        policy=PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8),
    )
