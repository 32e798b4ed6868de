"""What the three services must agree on: messages, tables, keys, topics, settings, health. Nothing more."""
