"""Compares everything that the pipeline stores with what it was made of; `python -m verify`.

It shares the declaration and the settings with the pipeline, and no code that parses, counts, publishes or indexes.
"""
