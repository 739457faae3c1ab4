"""The workflow language, module by module."""
