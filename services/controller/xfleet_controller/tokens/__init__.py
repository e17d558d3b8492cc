"""API tokens: for scripts, scoped and expiring."""
