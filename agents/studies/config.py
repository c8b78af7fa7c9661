"""Names of what is studied; read without torch, so that flags are quick."""

from __future__ import annotations

from typing import Literal

Method = Literal["adanat", "step-only", "grid", "cma", "raced cma"]
