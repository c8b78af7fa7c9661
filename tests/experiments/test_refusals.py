"""What a script would refuse late it refuses before there is a folder, and no flag is ignored."""

import shutil
from pathlib import Path

import pytest
from in_process import Call

from generators.files import PRETRAINED

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

# Of what is judged.
JUDGED = [
    ("autonat_search.py --task shapes --table.candidates 4", "a schedule per class is for classes"),
    ("autonat_search.py --task sudoku-4 --table.candidates 4", "is searched for whole images"),
    ("evaluate.py --task sudoku-4 --conditions balanced", "conditions balanced: task 'sudoku-4' draws"),
    ("evaluate.py --seeds 0 0", TWICE),
    ("evaluate.py --weights w.pth", "weights w.pth: whose? name the network with --extractor"),
    ("evaluate.py --reference r.npz --split select", "split select: --reference stands in its place"),
]


@pytest.mark.parametrize(("line", "said"), [*TABLES, *GENERATORS, *JUDGED])
def test_a_mistake_leaves_no_folder(call: Call, tmp_path: Path, line: str, said: str) -> None:
    code, out, err = call(*line.split(), "--output", tmp_path / "refused")
    assert code in (1, 2) and said in err and err.count("\n") == 1, err
    assert not out and not (tmp_path / "refused").exists()


def test_a_policy_with_a_generator_of_its_own_is_not_played_on_another_unasked(
    call: Call, tmp_path: Path
) -> None:
    shutil.copytree(PRETRAINED / "digits" / "nat" / "policies" / "adanat-T2", tmp_path / "co-trained")
    shutil.copytree(PRETRAINED / "digits" / "nat", tmp_path / "co-trained" / "generator")
    asked = "evaluate.py --policy co-trained --steps 2 --images 40 --output refused".split()
    code, _, err = call(*asked)
    assert code == 1 and "play it there, --generators co-trained/generator" in err
    for flag in ("--generators", "--task"):  # then the next mistake is told
        code, _, err = call(*asked, flag, "co-trained/generator", "--against", "nowhere")
        assert code == 1 and "against 'nowhere' is not one of" in err
    assert not (tmp_path / "refused").exists()
