"""Orders: what an admin asks of one server, and has it do."""
