"""What runs a server from day to day: keys, limits, metrics, logs, start and stop."""
