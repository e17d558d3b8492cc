"""Templates and assets of the panel."""
