"""The tests that rounding could break, on other processors' instructions: in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AT_RISK = [
    "tests/generators/test_nat.py",
    "tests/generators/test_enat.py::test_ragged_rows_are_rows_alone",
    "tests/generators/test_enat.py::test_ragged_decoding_is_one_by_one",
    "tests/generators/test_first_pass.py::test_each_condition_is_predicted_once",
    "tests/generators/test_vqgan.py::test_rows_are_independent",
    "tests/generators/test_decoding.py",
    "tests/natgym/test_env.py::test_row_i_is_the_one_image_env_with_seed_s_plus_i",
    "tests/natgym/test_env.py::test_the_action_played_before_is_observed",
    "tests/natgym/test_rewards.py::test_the_classifier_reward_is_a_slow_loop",
]


# torch's own kernels without vectors, and MKL's as on any processor: no kernel is in both libraries.
OTHERS = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


@pytest.mark.slow
def test_other_instructions_give_the_same_but_for_rounding() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *AT_RISK]
    environment = {key: said for key, said in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment | OTHERS, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
