"""All tests; run by `make test`."""
