"""A tokenizer as CLIP's that knows letters, for small models that tests build."""

import json
from pathlib import Path
from typing import Any


def letter_tokenizer(transformers: Any, folder: Path, length: int | None = None) -> int:
    """Save it in a folder; return the size of its vocabulary."""
    letters = [chr(code) for code in range(97, 123)]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: row for row, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    if length is not None:
        tokenizer.model_max_length = length
    tokenizer.save_pretrained(folder)
    return len(vocabulary)
