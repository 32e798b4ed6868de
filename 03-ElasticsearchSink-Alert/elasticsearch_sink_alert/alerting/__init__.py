"""Decides about alerts, keeps them, and notifies people."""
