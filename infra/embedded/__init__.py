"""The embedded default: a real Kafka and a real PostgreSQL under a supervisor."""
