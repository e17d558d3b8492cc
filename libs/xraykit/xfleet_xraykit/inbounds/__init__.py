"""Protocols of inbounds: one file each, with a `PROTOCOL`."""
