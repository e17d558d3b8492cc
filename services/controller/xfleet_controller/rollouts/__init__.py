"""Rollouts: an upgrade of many servers in waves."""
