"""The pure core: what is known of a cell and what follows from one more event; no I/O."""
