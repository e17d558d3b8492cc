"""Kinds of security: one file each, with a `SECURITY`."""
