"""Notifies people of alerts. A notifier is one file here and one entry in `schemes.py`."""

from elasticsearch_sink_alert.alerting.notifications.delivery import Notifications

__all__ = ["Notifications"]
