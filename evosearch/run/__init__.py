"""A run: a search on disk, from its config to the fine-tuned network."""
