"""What was ordered from which server, and what became of it."""
