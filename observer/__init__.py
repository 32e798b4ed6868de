"""Observes a running pipeline from outside, for the live page, the terminal demo and `make status`."""
