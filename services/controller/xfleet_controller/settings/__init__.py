"""The admin's own account and the installation's settings."""
