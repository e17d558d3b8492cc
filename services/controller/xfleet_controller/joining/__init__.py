"""Joining: where the broker is found from outside, and the one line that makes a machine a server of the fleet."""
