"""Observes a running pipeline from outside, for the live page, the demo and the benchmarks."""
