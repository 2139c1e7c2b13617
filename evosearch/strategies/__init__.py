"""Strategies propose masks and learn from trials; nothing here imports torch."""
