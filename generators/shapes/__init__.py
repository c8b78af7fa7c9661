"""Scenes of simple forms with captions whose truth a program can check: data for text to image that never
run out, a miniature of GenEval (Ghosh et al. 2023, arXiv 2310.11513).
"""
