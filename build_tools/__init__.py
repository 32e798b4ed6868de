"""Builds what the services run on: the pinned jars, Java's trust store, and its archive of classes."""
