"""Containers: the engine, what a workflow may ask of it, and the place of a job inside one."""
