"""The Telegram bot: asks and orders over the bus, keeps no state."""
