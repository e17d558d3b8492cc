"""Who may sign in: several admins with roles."""
