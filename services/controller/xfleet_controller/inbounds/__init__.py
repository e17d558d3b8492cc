"""What Xray listens on."""
