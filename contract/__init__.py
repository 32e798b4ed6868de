"""The declarations that the services share: interactions, tables, keys, topics, dead letters, alerts."""
