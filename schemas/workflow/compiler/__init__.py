"""From nodes to a plan, one module a section of the file; `compile.py` is the way in."""
