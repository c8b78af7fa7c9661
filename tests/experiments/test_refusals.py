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
    ("autonat_search.py --task digits#given=left --table.candidates 4", "is searched for whole images"),
    ("evaluate.py --task digits#given=left --conditions balanced", "draws the split's own images"),
    ("evaluate.py --seeds 0 0", TWICE),
    ("evaluate.py --weights w.pth", "weights w.pth: whose? name the network with --extractor"),
    ("evaluate.py --reference r.npz --split select", "split select: --reference stands in its place"),
]

# Of what would have been ignored, or be told after a page of plans.
IGNORED = [
    ("train_task.py images --features 0", "features 0: it must be at least 1"),
    ("train_task.py images --downsampling 0", "downsampling 0: it must be at least 2"),
    ("train_task.py images --tokenizer digits --codebook-size 9", "as it is; leave out codebook_size"),
    ("train_task.py images --tokenizer digits --tokenizer-updates 9", "leave out tokenizer_updates"),
    ("reward_agreement.py --rewards", "rewards is empty; give at least one"),
    ("learning_curves.py --schedule nowhere --methods cma", "schedule 'nowhere' is neither a file nor"),
    ("train_task.py images#caption=text --conditions balanced", "texts are drawn as the data have them"),
]


def test_asha_is_no_matter_of_torchruns_ranks(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = "adanat_ppo.py --asha-rung 2 --num-samples 2 --output refused".split()
    code, _, err = call(*asked)
    assert code == 1 and "asha-rung 2: torchrun's processes train all" in err
    assert not (tmp_path / "refused").exists()


def test_a_benchmark_measures_one_thing_at_a_time(call: Call, tmp_path: Path) -> None:
    for both in ("plan ratios", "latency=3 plan", "latency=3 profile", "ratios profile"):
        code, _, err = call("benchmark.py", *(f"--{flag}" for flag in both.split()))
        assert code == 2 and "each is measured alone" in err
    for mode in ("plan", "ratios"):
        code, _, err = call("benchmark.py", f"--{mode}", "--json", "numbers.json")
        assert code == 2 and f"json numbers.json: {mode} is printed alone" in err


@pytest.mark.parametrize(("line", "said"), [*TABLES, *GENERATORS, *JUDGED, *IGNORED])
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
