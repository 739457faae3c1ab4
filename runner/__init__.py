"""Execution: runs the steps of assigned jobs and ships what they print."""
