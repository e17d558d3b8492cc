"""Checks: what an operator can have tried from this machine; each is bounded in time and never raises."""
