"""What is said with: one outside thing a module (Kafka, PostgreSQL, objects, settings, clock)."""
