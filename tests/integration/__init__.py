"""Tests of the parts together, on a real Kafka, PostgreSQL and git."""
