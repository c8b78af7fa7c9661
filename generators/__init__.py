"""natgym's generators draw images from tokens; nothing in this package knows reinforcement learning.

Its public names are imported when they are first asked for, as natgym's are.
"""

import importlib
from typing import Any

_HOMES = {
    "Captions": "generators.texts",
    "Condition": "generators.conditions",
    "ConvVQ": "generators.tokenizers",
    "ConvVQConfig": "generators.tokenizers",
    "CoupledNoise": "generators.noise",
    "DecodeParams": "generators.schedules",
    "DecodeRules": "generators.rules",
    "DecodeState": "generators.decoding",
    "DecodingParameter": "generators.parameters",
    "ENAT": "generators.enat",
    "ENATConfig": "generators.enat",
    "Generator": "generators.contract",
    "Given": "generators.given",
    "HashNoise": "generators.noise",
    "Labels": "generators.conditions",
    "NAT": "generators.nat",
    "NATConfig": "generators.nat",
    "Noise": "generators.noise",
    "PatchKMeans": "generators.tokenizers",
    "PatchKMeansConfig": "generators.tokenizers",
    "Prediction": "generators.contract",
    "Proposal": "generators.reveal",
    "RevealRule": "generators.reveal",
    "Schedule": "generators.schedules",
    "Split": "generators.images",
    "Text": "generators.texts",
    "TextEncoder": "generators.encoders",
    "Tokenizer": "generators.tokenizers",
    "Trainer": "generators.training",
    "TrainingConfig": "generators.config",
    "VQGAN": "generators.vqgan",
    "VQGANConfig": "generators.vqgan",
    "VQTrainer": "generators.vq",
    "VQTrainingConfig": "generators.config",
    "advance": "generators.decoding",
    "family": "generators.schedules",
    "from_pretrained": "generators.checkpoints",
    "give": "generators.given",
    "load_split": "generators.data",
    "save_pretrained": "generators.checkpoints",
    "start": "generators.decoding",
}
__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
