"""The errors of a replay."""


class ReplayError(Exception):
    """A replay cannot start or go on; the message has a line for each reason, with setting and remedy."""
