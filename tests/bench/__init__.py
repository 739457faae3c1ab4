"""Measurements of the whole system, each beside a limit taken in the same run: `make bench`."""
