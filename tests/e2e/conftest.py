"""The end-to-end tests: their fixtures are in support/fixtures.py."""
pytest_plugins = ["support.fixtures"]
