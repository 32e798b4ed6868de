"""Writes rows and other documents to Elasticsearch."""
