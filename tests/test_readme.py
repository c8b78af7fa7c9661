"""The Python code of README and docs runs as it is printed, and the agent of the README learns."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
ENVIRONMENT = (ROOT / "docs/environment.md").read_text()


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


(PROGRAM,) = snippets(README)
EXAMPLE, AGENT, OPTIONS, TOKENS, GIVEN, REWARD, ROLLOUT = snippets(ENVIRONMENT)
(SWEEP,) = snippets((ROOT / "docs/autonat.md").read_text())


def test_the_program_is_the_one_that_is_run_with_a_smaller_budget() -> None:
    """Line by line that of docs/extending.md, which is run as it stands."""
    program = PROGRAM.replace("AdaNATConfig()", "AdaNATConfig(updates=2, final_images=200)").replace(
        "task, steps=4)", "task, steps=4, images=200)"
    )
    lines = [line.partition("  # ")[0] for line in program.splitlines()]
    assert lines == snippets((ROOT / "docs/extending.md").read_text())[0].splitlines()


def test_the_first_example_runs_by_itself() -> None:
    done = subprocess.run([sys.executable, "-c", EXAMPLE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("snippet", [OPTIONS, TOKENS, GIVEN, REWARD])
def test_the_code_of_the_docs_runs(snippet: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(snippet, {})
    assert capsys.readouterr().out


def test_the_environment_takes_ten_lines() -> None:
    lines = [line for line in EXAMPLE.splitlines() if line.strip()]
    assert len(lines) <= 10 and "natgym/Decode-v1" in EXAMPLE


@pytest.mark.ray
def test_a_sweep_over_schedules_takes_ten_lines_and_runs(tmp_path: Path) -> None:
    """As a user's own script, of fewer trials; Ray's results go to a home of its own."""
    assert len([line for line in SWEEP.splitlines() if line.strip()]) <= 10
    program = SWEEP.replace("num_samples=8", "num_samples=2")
    assert program != SWEEP
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    distance, config = done.stdout.splitlines()[-1].split(" ", 1)
    assert 0 < float(distance) < 10 and "remask" in config


def test_a_reward_takes_twenty_lines() -> None:
    lines = [line for line in REWARD.splitlines() if line.strip()]
    assert len(lines) <= 20 and "agents" not in REWARD


def test_the_agent_of_thirty_lines_learns_without_agents() -> None:
    """Its mean action beats the schedule that it started from, on images that it has not seen."""
    assert len([line for line in AGENT.splitlines() if line.strip()]) <= 30
    assert set(re.findall(r"^(?:import|from) (\w+)", AGENT, re.MULTILINE)) == {"gymnasium", "torch", "natgym"}
    learned: dict[str, Any] = {}
    exec(AGENT, learned)
    envs, decide = learned["envs"], learned["decide"]

    def rewards(policy: Any) -> np.ndarray:
        played = []
        for seed in (1000, 2000, 3000, 4000):
            observation, _ = envs.reset(seed=seed)
            for _ in range(4):
                with torch.no_grad():
                    observation, reward, *_ = envs.step(policy(observation))
            played.append(reward)
        return np.concatenate(played)

    ours, theirs = rewards(lambda seen: decide(seen).mean), rewards(lambda seen: torch.zeros(128, 4))
    gain = ours - theirs  # of pairs on the same noise, 512 of them
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5


def test_the_rollout_of_the_docs_writes_its_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(ROLLOUT, {})
    assert {"masked_after", "confidence", "entropy", "nfe"} <= set(capsys.readouterr().out.split())
    assert Image.open(tmp_path / "revealed.gif").n_frames == 9  # type: ignore[attr-defined]
    assert Image.open(tmp_path / "revealed.png").size == (9 * 100 - 4, 8 * 100 - 4)


@pytest.mark.parametrize(
    "page", ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]
)
def test_files_named_in_a_page_exist(page: str) -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", (ROOT / page).read_text())
    assert all(((ROOT / page).parent / path).exists() for path in linked), linked
    assert linked or page != "README.md"
