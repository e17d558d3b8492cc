"""Transports: one file each, with a `TRANSPORT`."""
