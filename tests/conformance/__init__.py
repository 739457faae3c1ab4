"""Runs a folder of language cases: `python -m tests.conformance DIR [--json]`."""
