"""The workflow language under generated input."""
