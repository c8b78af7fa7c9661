"""Policies judged: scores, statistics, tables, protocols, reports."""

from natgym._lazy import lazily

_HOMES = {
    "EvaluationConfig": "natgym.evaluation.protocol",
    "Evaluator": "natgym.evaluation.evaluator",
    "evaluate": "natgym.evaluation.tables",
}
__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazily(__name__, _HOMES)
