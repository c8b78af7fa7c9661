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


@pytest.mark.parametrize(("line", "said"), TABLES)
def test_a_mistake_leaves_no_folder(call: Call, tmp_path: Path, line: str, said: str) -> None:
    code, out, err = call(*line.split(), "--output", tmp_path / "refused")
    assert code in (1, 2) and said in err and err.count("\n") == 1, err
    assert not out and not (tmp_path / "refused").exists()
