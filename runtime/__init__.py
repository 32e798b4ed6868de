"""The code that the services share: settings, logs, health, topic creation, signals, the Kafka client."""
