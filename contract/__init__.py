"""The declarations that all services share: interactions, tables, keys, topics, dead letters, alerts. Nothing here runs."""
