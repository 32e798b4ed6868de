"""The stream job: keeps every interaction in Delta Lake, aggregates, and publishes what changed."""
