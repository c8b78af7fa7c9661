"""What natgym asks itself about puzzles: the order of tokens, the price of a pass."""

from __future__ import annotations

from _claim_parts import LOCAL, TOY_JUDGED, TOY_TRAINING
from _claim_terms import Command, Row, Statement

_TOKENS = "--task sudoku-4 --steps 4 --schedule linear:sampling=.1,remask=0"
_PUZZLE = Row(
    name="token-order",
    paper="natgym",
    claim="A learned order of revealing solves more than the best of four fixed orders in as many passes",
    reported="not asked",
    task="sudoku-4, 3 cells given",
    steps="4",
    budget="200 updates of 512 puzzles",
    chooses="select chooses the kept policy (here train did); report judges, 2,000 puzzles, 3 seeds",
    commands=(
        Command(
            name="tokens",
            line=f"adanat_ppo.py {_TOKENS} --actions tokens --observation statistics --reward valid "
            "--objective valid --learning-rate 1e-3 --final-learning-rate None --trajectories 512 "
            "--minibatch 512 --epochs 2 --group 8 --baseline rloo --updates 200 --evaluate-every 20 "
            "--final-images 2000 --no-step-only --search.budget 4000 --images 2000 --evaluation-seeds 0 "
            f"--seed {{seed}} {LOCAL}",
            toy=TOY_TRAINING,
        ),
        Command(
            name="solved",
            line="evaluate.py --task sudoku-4 --policy {runs}/tokens-{seed} linear:sampling=.1,remask=0 "
            "linear:sampling=.1,remask=0,rule=margin linear:sampling=.1,remask=0,rule=entropy "
            "linear:sampling=.1,remask=0,rule=random --steps 4 --images 2000 --seeds 0 1 2 --threads 1",
            toy=TOY_JUDGED,
        ),
    ),
    statements=tuple(
        Statement(ours="solved: tokens", theirs=f"solved: linear:sampling=.1,remask=0{rule}", metric="valid")
        for rule in ("", ",rule=margin", ",rule=entropy", ",rule=random")
    ),
)
_PRICED = "--task sudoku-4 --steps 8 --schedule linear:sampling=.1,remask=0 --actions reveal --price .01 .3"
_PRICES = Row(
    name="price-per-pass",
    paper="natgym",
    claim="One policy that sees what a pass costs takes fewer passes where they are dear",
    reported="not asked",
    task="sudoku-4, 3 cells given",
    steps="8",
    budget="200 updates of 256 puzzles",
    chooses="select chooses the kept policy (of two here train did); report judges, 2,000 puzzles, 3 seeds",
    commands=(
        Command(
            name="priced",
            line=f"adanat_ppo.py {_PRICED} --observation statistics --reward valid --objective valid "
            "--tokens.start sure,theta=.9,most=1 --learning-rate 1e-3 --final-learning-rate None "
            "--trajectories 256 --minibatch 256 --epochs 2 --group 8 --baseline rloo --updates 200 "
            "--evaluate-every 25 --final-images 1000 --no-step-only --search.budget 4000 --images 2000 "
            f"--evaluation-seeds 0 --seed {{seed}} {LOCAL}",
            toy=TOY_TRAINING,
        ),
        Command(
            name="told",
            line="evaluate.py --task sudoku-4 --policy {runs}/priced-{seed}@price=.01 "
            "{runs}/priced-{seed}@price=.3 --steps 8 --images 2000 --seeds 0 1 2 --threads 1",
            toy=TOY_JUDGED,
        ),
    ),
    statements=(Statement(ours="told: priced@price=0.3", theirs="told: priced@price=0.01", metric="nfe"),),
)

ROWS = (_PUZZLE, _PRICES)
