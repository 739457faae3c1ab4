"""Tests of ingest: webhooks, commands, planner."""
