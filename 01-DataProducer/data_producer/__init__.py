"""The data producer: random user-item interactions for Kafka."""
