"""Managed VPN servers: what they are and what they report."""
