"""Tasks: every command and apply, per server."""
