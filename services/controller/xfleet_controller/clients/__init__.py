"""Clients: the persons and devices that are sold access."""
