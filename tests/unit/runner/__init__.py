"""The runner's pure parts, and its parts that need nothing but this machine."""
