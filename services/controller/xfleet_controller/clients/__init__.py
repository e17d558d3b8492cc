"""The people and devices that are sold access."""
