"""Measures latency on this device, in the user's runtime: profile, correction, certificate."""
