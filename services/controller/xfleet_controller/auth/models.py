"""Admins, their sessions and tokens, and how often somebody guessed wrong."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId


class Admin(Base):
    """Somebody who signs in."""

    __tablename__ = "admins"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    name_key: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(300))
    role: Mapped[str] = mapped_column(String(20), default="owner")
    """owner, operator, support, read-only."""
    enabled: Mapped[bool] = mapped_column(default=True)
    totp_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    totp_last_counter: Mapped[int | None] = mapped_column(BigId)
    totp_confirmed_at: Mapped[datetime | None]
    """Since when a code is asked for; a secret without it is being set up."""
    last_login_at: Mapped[datetime | None]
    invite_sha256: Mapped[str | None] = mapped_column(String(64), index=True, unique=True)
    """Of the one-time link by which this admin chooses a password; None when there is none."""
    invite_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    password_changed_at: Mapped[datetime]


class Session(Base):
    """A signed-in browser or API user; only the token's SHA-256 is kept."""

    __tablename__ = "sessions"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    admin_id: Mapped[int] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(10), default="cookie")
    """cookie or bearer."""
    address: Mapped[str] = mapped_column(String(64), default="")
    user_agent: Mapped[str] = mapped_column(String(300), default="")
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class RecoveryCode(Base):
    """Signs in once in place of a TOTP code; only its SHA-256 is kept."""

    __tablename__ = "recovery_codes"

    admin_id: Mapped[int] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"), primary_key=True)
    code_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class ApiToken(Base):
    """A token for scripts: shown once, scoped, expiring."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    admin_id: Mapped[int] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class LoginThrottle(Base):
    """Wrong passwords per account and per address."""

    __tablename__ = "login_throttles"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    """`account:<name>` or `address:<ip>`."""
    failures_count: Mapped[int] = mapped_column(default=0)
    blocked_until_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(index=True)
