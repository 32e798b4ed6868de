"""Consumes the aggregated topic, commits its offsets, and produces dead letters."""
