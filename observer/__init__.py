"""Observes a running pipeline from outside, for the live page and the terminal demo."""
