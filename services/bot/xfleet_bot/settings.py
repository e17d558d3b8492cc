"""What the bot can be told."""

from pathlib import Path

import msgspec

from xfleet_runtime.errors import Unusable


class BotSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `xfleet-bot`."""

    credentials_file: Path
    """The bot's bus credentials, made by the controller."""
    bot_token: str = ""
    """The Telegram bot token from @BotFather."""
    token_file: Path | None = None
    """A file that holds the token, instead of `bot_token`."""
    bot_api_base: str = ""
    """Base address of the Bot API; empty: Telegram's own."""
    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`."""


def token_of(settings: BotSettings) -> str:
    """The token. Raises `Unusable` when there is none or it cannot be read."""
    if settings.token_file is None:
        token = settings.bot_token.strip()
    else:
        try:
            token = settings.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(f"Cannot read the bot token from {settings.token_file}: {error}.") from error
    if not token:
        raise Unusable(
            "There is no bot token. Get one from @BotFather and give it as XFLEET_BOT_TOKEN or --token-file."
        )
    return token
