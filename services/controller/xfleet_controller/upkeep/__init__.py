"""How long things are kept, and what happens when the disk runs low."""
