"""Puzzles on a grid of symbols, made by code, whose answers a program can judge: data for questions of order,
where some tokens are given and the others follow from them.
"""
