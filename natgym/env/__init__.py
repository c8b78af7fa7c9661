"""Decoding as Gymnasium environments."""

from natgym._lazy import lazily

_HOMES = {
    "DecodeEnv": "natgym.env.single",
    "DecodeVectorEnv": "natgym.env.vector",
}
__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazily(__name__, _HOMES)
