"""The commands that a user runs."""
