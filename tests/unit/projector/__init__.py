"""The read side without a database, a broker or a server."""
