"""Creates certificates, passwords and rights of a pipeline whose servers ask for them (compose.secure.yml)."""
