"""The scheduler's core."""
