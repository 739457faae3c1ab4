"""The only place that decides which job runs, when, where, again or never."""
