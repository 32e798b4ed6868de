"""Consumes the aggregated topic, and produces dead letters."""
