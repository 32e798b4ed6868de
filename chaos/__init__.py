"""Runs the pipeline under load and a seeded schedule of faults, and checks that nothing is lost or doubled.

`python -m chaos` runs it; the load, the ledger and the check of the rows share no code with the services.
"""
