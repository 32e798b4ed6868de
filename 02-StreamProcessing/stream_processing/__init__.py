"""The stream job: writes interactions to Delta Lake, aggregates them, and publishes changed rows."""
