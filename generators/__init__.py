"""natgym's generators draw images from tokens; nothing in this package knows reinforcement learning."""
