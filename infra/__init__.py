"""What is said with: one outside thing a module (Kafka, PostgreSQL, objects, settings, clock)."""

from __future__ import annotations

VERSION = "0.1.0"
"""The version of Tailrace; pyproject.toml has the same (a test compares them)."""
