"""The stream job beside other engines: the same interactions, the same rows, the same measurement for each.

An engine is a `Peer`: how it is set up and started, its version, its settings and what it does not do. `driver`
measures any of them from outside: it reads the topic of interactions, the topic of changed rows, and the costs of the
process.
"""
