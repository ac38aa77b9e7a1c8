"""The cloud, tested through its own doors."""
