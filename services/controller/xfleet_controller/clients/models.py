"""Clients, the inbounds each is on, and what is left of the deleted ones."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId


class Group(Base):
    """Clients under one name, with limits of their own."""

    __tablename__ = "groups"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    total_bytes: Mapped[int | None] = mapped_column(BigId)
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class Client(Base):
    """A person or device that is sold access."""

    __tablename__ = "clients"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    ref: Mapped[int] = mapped_column(BigId, unique=True)
    name: Mapped[str] = mapped_column(String(100))
    name_key: Mapped[str] = mapped_column(String(100), unique=True)
    """The name in lower case: names differ by more than case."""
    sub_id: Mapped[str] = mapped_column(String(64), unique=True)
    group_id: Mapped[int | None] = mapped_column(ForeignKey("groups.id", ondelete="SET NULL"), index=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    """A person's decision."""
    cut_reason: Mapped[str | None] = mapped_column(String(20), index=True)
    """The limits' decision: `quota` or `expired`; None while access is allowed."""
    total_bytes: Mapped[int | None] = mapped_column(BigId)
    """Quota, up and down together, over all servers; None: unlimited."""
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    comment: Mapped[str] = mapped_column(default="")
    telegram_id: Mapped[int | None] = mapped_column(BigId, index=True)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Renewal, periodic reset, addresses, devices: rules that later editions read."""
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ClientInbound(Base):
    """A client on an inbound, with the credential made for it."""

    __tablename__ = "client_inbounds"

    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True)
    inbound_id: Mapped[int] = mapped_column(ForeignKey("inbounds.id", ondelete="CASCADE"), primary_key=True, index=True)
    credentials_sealed: Mapped[bytes] = mapped_column(LargeBinary)
    """JSON of uuid, flow, password."""
    created_at: Mapped[datetime]


class Tombstone(Base):
    """What is left of a deleted client, inbound or server: its ref or slug never comes back, late rows find it."""

    __tablename__ = "tombstones"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    """client, inbound, server."""
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Ref in decimal, or slug."""
    name: Mapped[str] = mapped_column(String(200))
    server_id: Mapped[int | None] = mapped_column(BigId)
    """Of an inbound: where it was."""
    deleted_at: Mapped[datetime]
    retiring: Mapped[bool] = mapped_column(default=False, index=True)
    """Until every server it was on has acknowledged."""
