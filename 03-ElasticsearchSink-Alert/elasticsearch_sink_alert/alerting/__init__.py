"""Evaluates alert rules, stores alerts, and sends notifications."""
