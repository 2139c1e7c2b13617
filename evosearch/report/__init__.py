"""Tables and plots, derived from a study on disk; nothing here imports torch."""
