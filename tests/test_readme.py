"""The README's Python code runs as it is printed, and its claims are those of its table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_code_of_the_readme_runs_by_itself(snippet: str) -> None:
    done = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_environment_takes_ten_lines() -> None:
    lines = [line for line in SNIPPETS[0].splitlines() if line.strip()]
    assert len(lines) <= 10 and "natgym/Decode-v0" in SNIPPETS[0]


def test_files_named_in_the_readme_exist() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert linked and all((ROOT / path).exists() for path in linked), linked
