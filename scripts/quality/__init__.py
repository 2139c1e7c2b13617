"""The parts of `bench_quality`: who chooses channels, what is measured, and the page."""
