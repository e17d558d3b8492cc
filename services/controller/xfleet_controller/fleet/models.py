"""Keys, settings, identities handed out and taken back."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId, Json


class Setting(Base):
    """One setting that the panel may change."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[Any] = mapped_column(Json)
    updated_at: Mapped[datetime]


class FleetSecret(Base):
    """A secret of the fleet, sealed under the key file: CA, operator, role and command keys, the bot's token."""

    __tablename__ = "fleet_secrets"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Certificate(Base):
    """An identity issued to a server: certificate and JWT of one key; several overlap while one is renewed."""

    __tablename__ = "certificates"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), index=True)
    common_name: Mapped[str] = mapped_column(String(100))
    serial_number: Mapped[str] = mapped_column(String(64), unique=True)
    nkey: Mapped[str] = mapped_column(String(64), index=True)
    pem_certificate: Mapped[str]
    source: Mapped[str] = mapped_column(String(20), default="enroll")
    """enroll, renew or https."""
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Revocation(Base):
    """An nkey that no broker may accept; the account JWT is built from these."""

    __tablename__ = "revocations"

    nkey: Mapped[str] = mapped_column(String(64), primary_key=True)
    server_id: Mapped[int | None] = mapped_column(BigId)
    reason: Mapped[str] = mapped_column(String(200), default="")
    revoked_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """When the last JWT of this key expires by itself; the row may go then."""


class EnrollmentToken(Base):
    """A one-time enrollment token; its secrets are only in the pasted line."""

    __tablename__ = "enrollment_tokens"

    token_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_nkey: Mapped[str | None] = mapped_column(String(64))
    used_key_sha256: Mapped[str | None] = mapped_column(String(64))
    replaces: Mapped[bool] = mapped_column(default=False)
    """Made to replace the server's machine: using it makes hosts and links follow the new address."""
    replaces_address: Mapped[str] = mapped_column(String(255), default="")
    """The new machine's public address, where the one who made the token knew it."""
    answer_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The answer, for the same keys asking again."""


class OutboxRow(Base):
    """Work that a transaction left for after its commit: a dirty server, or an event to publish."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_topic_id", "topic", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    topic: Mapped[str] = mapped_column(String(20))
    """`state` or `event`."""
    server_id: Mapped[int | None] = mapped_column(BigId)
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    attempts_count: Mapped[int] = mapped_column(default=0)
    not_before_at: Mapped[datetime | None]
