"""Writes rows into Elasticsearch."""
