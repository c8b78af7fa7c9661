"""What a script would refuse late it refuses before there is a folder, and no flag is ignored."""

from pathlib import Path

import pytest
from in_process import Call

FEW = "images 20: the extractor has"
TWICE = "give at least one, and none twice"
# Of the table at the end, before which trainings and searches take their hours.
TABLES = [
    ("adanat_ppo.py --images 20", FEW),
    ("adanat_ppo.py --evaluation-seeds 0 0", TWICE),
    ("autonat_search.py --images 20", FEW),
    ("autonat_training.py --images 20", FEW),
    ("autonat_training.py --evaluation-seeds", TWICE),
    ("export_episodes.py --distill --evaluation-images 20", FEW),
    ("export_episodes.py --distill --seeds 1 1", TWICE),
]

# Of a generator that can't be made or trained.
GENERATORS = [
    ("train_generator.py --depth 3", "depth 3 is odd"),
    ("train_generator.py --width 30 --heads 4", "width 30 is not divisible by heads 4"),
    ("train_generator.py --reuse 0.5", "reuse 0.5: NAT reuses nothing"),
    ("train_generator.py --betas 0.9 1.5", "betas (0.9, 1.5): they must be in [0, 1)"),
    ("train_generator.py --batch-size 3 --workers 2", "batch_size 3 can't be shared by 2 ranks"),
    ("train_generator.py --given 0.5", "given 0.5: task 'digits' gives no tokens"),
    ("train_generator.py --data sudoku-4 --given 0.5 --mirror", "no --mirror or --crops"),
    ("train_generator.py --crops 2", "crops 2: images of digits have one size"),
    ("train_generator.py --tokenizer mnist", "the tokenizer's (1, 28, 28)"),
    ("train_generator.py --classifier nowhere", "'nowhere' is neither a folder with a saved score_extractor"),
]


@pytest.mark.parametrize(("line", "said"), [*TABLES, *GENERATORS])
def test_a_mistake_leaves_no_folder(call: Call, tmp_path: Path, line: str, said: str) -> None:
    code, out, err = call(*line.split(), "--output", tmp_path / "refused")
    assert code in (1, 2) and said in err and err.count("\n") == 1, err
    assert not out and not (tmp_path / "refused").exists()
