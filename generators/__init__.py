"""Generators draw images from tokens; nothing in this package knows reinforcement learning."""

from generators import nat, tokenizers  # noqa: F401  (their classes register themselves for from_pretrained)
