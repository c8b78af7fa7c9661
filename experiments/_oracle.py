"""What a policy could do that knows the rules of a puzzle: the room that there is beyond rules."""

from __future__ import annotations

import torch

from generators.puzzles.sudoku import Sudoku
from generators.schedules import DecodeParams
from natgym.observations import Observation
from natgym.policies import Decision
from natgym.task import Task

ALL_BUT_CERTAIN = 0.001  # sampling temperature: what is drawn is the likeliest symbol


class Oracle:
    """Reveal, the surest first, each token whose likeliest symbol leaves a grid that can be completed.

    Where none does, the decoding rule reveals one.

    Args:
        puzzle: what can be completed.
    """

    def __init__(self, puzzle: Sudoku) -> None:
        self.puzzle, self.steps = puzzle, puzzle.cells

    @classmethod
    def of(cls, task: Task) -> Oracle:
        """Return the one of a task; ValueError if it is no sudoku."""
        puzzle = getattr(task.score_extractor, "puzzle", None)
        if not isinstance(puzzle, Sudoku):
            raise ValueError(f"oracle: it knows the rules of sudokus, and {task} is none; leave it out")
        return cls(puzzle)

    def __call__(self, observation: Observation, step: int) -> DecodeParams:
        return self.decide(observation, step).params

    def decide(self, observation: Observation, step: int) -> Decision:
        """Return which tokens are revealed, and that their likeliest symbols are drawn."""
        likeliest = observation["logits"].log_softmax(-1).max(-1)
        seen_BL = observation["tokens"].masked_fill(observation["masked"].bool(), -1)
        orders_BL = likeliest.values.argsort(descending=True)
        rows = zip(seen_BL.tolist(), likeliest.indices.tolist(), orders_BL.tolist(), strict=True)
        chosen_BL = torch.tensor([self._chosen(*row) for row in rows], device=seen_BL.device)
        table_BK = torch.tensor([[0, 0, ALL_BUT_CERTAIN, 0]], dtype=torch.float64)
        return Decision(DecodeParams.from_table(table_BK.expand(len(chosen_BL), -1)), chosen_BL=chosen_BL)

    def _chosen(self, cells: list[int], symbols: list[int], order: list[int]) -> list[bool]:
        answer, chosen = self.puzzle.completed(cells), [False] * len(cells)
        for cell in order if answer else ():
            if cells[cell] < 0:
                more = [*cells[:cell], symbols[cell], *cells[cell + 1 :]]
                one = answer if answer[cell] == symbols[cell] else self.puzzle.completed(more)  # type: ignore[index]
                if one:
                    cells, answer, chosen[cell] = more, one, True
        return chosen
