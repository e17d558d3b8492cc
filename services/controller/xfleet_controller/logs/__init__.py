"""Logs of servers: read once, or live while somebody looks."""
