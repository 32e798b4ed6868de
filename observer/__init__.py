"""Observes a running pipeline from outside, for the page, the demo and the benchmarks."""
