"""The operator's command line, and everything on one machine."""
