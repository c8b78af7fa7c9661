"""Points in clusters that are known."""

import numpy as np


def blobs(K: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points (K * each, 8) around K centres, and which centre is whose."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(K, 8)) * 3
    labels = np.repeat(np.arange(K), each)
    return centres[labels] + spread * rng.normal(size=(len(labels), 8)), labels
