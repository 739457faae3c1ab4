"""The server side for running jobs: what an attempt may have, while it lives and not after."""
