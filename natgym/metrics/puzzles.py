"""The reader of puzzles: a program that reads the symbols of an image and says which rules hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register
from generators.puzzles.data import PUZZLES
from generators.puzzles.glyphs import Glyphs, GlyphsConfig


@dataclass(frozen=True, kw_only=True)
class PuzzleReaderConfig:
    """Which puzzle it reads, a name of `generators.puzzles.data.PUZZLES`."""

    puzzle: str

    def __post_init__(self) -> None:
        if self.puzzle not in PUZZLES:
            raise ValueError(f"puzzle {self.puzzle!r} is not one of {', '.join(PUZZLES)}")


@register(PuzzleReaderConfig)
class PuzzleReader(nn.Module):
    """Images (B, 1, H, W) in [0, 1] -> which symbol each cell holds, one-hot (B, L * V), as features and as
    logits. Their means are how often a cell holds a symbol, their covariances are what two cells hold."""

    meaning = "Frechet distance of the symbols of cells and of pairs of cells; not the Inception FID"
    tells = ("valid", "held")  # by `read`

    def __init__(self, config: PuzzleReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.puzzle = PUZZLES[config.puzzle]
        self.glyphs = Glyphs(GlyphsConfig(symbols=self.puzzle.symbols, grid=self.puzzle.grid))

    @property
    def num_features(self) -> int:
        return self.puzzle.cells * len(self.puzzle.symbols)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        symbols_BL = self.glyphs.encode(images_BCHW)
        there_BN = F.one_hot(symbols_BL, len(self.puzzle.symbols)).flatten(1).float()
        return there_BN, there_BN

    def holds(self, logits_BN: Tensor) -> Tensor:
        """Return which rules of the puzzle hold in each image, bool (B, R), on the host."""
        symbols_BL = logits_BN.unflatten(1, (self.puzzle.cells, -1)).argmax(-1)
        return torch.from_numpy(self.puzzle.holds(symbols_BL.cpu().numpy()))

    def read(self, texts: Sequence[str], logits_BN: Tensor) -> dict[str, float]:
        """Return the share of images in which all rules hold, and that of rules that hold."""
        holds_BR = self.holds(logits_BN)
        return {"valid": float(holds_BR.all(1).double().mean()), "held": float(holds_BR.double().mean())}
