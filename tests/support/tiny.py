"""Settings of a training that takes a moment."""

from agents.adanat.config import TrainingConfig
from agents.adanat.network import PolicyConfig

TINY = TrainingConfig.of(
    steps=2,
    updates=3,
    trajectories=32,
    epochs=1,
    minibatch=32,
    discriminator_batch=16,
    warmup=1,
    evaluate_every=2,
    evaluation_images=40,
    finalists=1,
    reward="adversarial",
    learning_rate=1e-3,
    final_learning_rate=None,
    action_std=(0.3, 0.2),
    policy=PolicyConfig(width=16, channels=8, hidden=(16, 16), frequencies=8),
)
"""Three updates of 32 images at two steps, on a small policy network."""
