"""Strategies by what they do, where tests ask for something else of some."""

FIXED = {"uniform", "global", "triangular", "relative"}
"""They propose one plan per budget."""
UNDRAWN = FIXED | {"stepwise"}
"""They draw nothing: the seed does not matter, and their plans come to an end."""
