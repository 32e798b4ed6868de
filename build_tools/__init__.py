"""Build tools: fetch the pinned jars, create Java's trust store, dump its class data archive."""
