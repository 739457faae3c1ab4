"""The contract: what is said. Events, topics, codec and the workflow language; no I/O."""
