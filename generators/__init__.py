"""Generators draw images from tokens; nothing in this package knows reinforcement learning."""

# These classes register themselves for from_pretrained.
from generators import enat, nat, planted, tokenizers, vqgan  # noqa: F401
