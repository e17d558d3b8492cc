"""The own account: password, sessions, second factor, bound Telegram accounts."""
