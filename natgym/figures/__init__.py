"""Figures of policies, trainings and searches."""
