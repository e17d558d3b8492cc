"""Inbounds: where clients enter a server."""
