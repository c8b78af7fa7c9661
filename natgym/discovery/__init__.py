"""Multimodal generalized category discovery: MM-GCD on SimGCD, and what it needs."""
