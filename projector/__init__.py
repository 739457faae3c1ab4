"""The read side: rows, query API, live streams and pages derived from the log."""
