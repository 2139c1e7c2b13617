"""Channel selection for CNN pruning as combinatorial search."""

__version__ = "0.1.0"
