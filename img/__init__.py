"""The pictures of the README, and the code that takes them: ``python -m img``."""
