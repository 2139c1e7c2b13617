"""What is coupled in a network, and how to cut it."""
