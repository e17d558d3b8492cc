"""What the Telegram bot asks and orders."""
