"""What every service needs to run: settings, logs, health, clients."""
