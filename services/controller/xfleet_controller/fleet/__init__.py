"""The fleet itself: its keys, settings, the broker's streams, enrollment."""
