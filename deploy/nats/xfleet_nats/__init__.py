"""The broker: its configuration, roles and start."""
