"""The public origin: queries, live streams, pages, and what is forwarded to ingest."""
