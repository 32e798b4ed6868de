"""The sink: indexes changed rows by their key, and raises alerts from rules that the user edits."""
