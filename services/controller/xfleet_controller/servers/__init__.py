"""The managed VPN servers and their desired state."""
