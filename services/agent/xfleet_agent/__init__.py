"""The agent: drives the Xray-core of one VPN server."""
