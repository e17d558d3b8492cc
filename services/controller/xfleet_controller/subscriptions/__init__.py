"""What a client's app downloads."""
