"""The workflow language: reader, expressions, filters, matrix and plan; pure."""
