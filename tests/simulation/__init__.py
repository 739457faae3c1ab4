"""The scheduler among faults, by seed: `make simulate SEEDS=n START=s`."""
