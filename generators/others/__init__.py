"""Generators of others behind natgym's contract; each module imports its library when a model is built."""
