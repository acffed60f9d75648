"""A run's directory: its identity, its state, its files, and its mirrors in trackers."""
