"""Who is who in Telegram."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId


class BotCode(Base):
    """A one-time code by which an admin binds a Telegram account; only its SHA-256 is kept."""

    __tablename__ = "bot_codes"

    code_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    admin_id: Mapped[int] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class BotBinding(Base):
    """A Telegram account that acts for an admin."""

    __tablename__ = "bot_bindings"

    telegram_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    admin_id: Mapped[int] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[datetime]
