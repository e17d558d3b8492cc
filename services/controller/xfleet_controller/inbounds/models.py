"""Inbounds and the hosts under which they are advertised."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId


class Inbound(Base):
    """What Xray listens on, on one server; Xray's own objects are sealed because they hold private keys."""

    __tablename__ = "inbounds"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    ref: Mapped[int] = mapped_column(BigId, unique=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"), index=True)
    remark: Mapped[str] = mapped_column(String(200), default="")
    listen: Mapped[str] = mapped_column(String(200), default="")
    port: Mapped[int]
    protocol: Mapped[str] = mapped_column(String(30))
    network: Mapped[str] = mapped_column(String(30), default="")
    security: Mapped[str] = mapped_column(String(30), default="")
    config_sealed: Mapped[bytes] = mapped_column(LargeBinary)
    """JSON of settings, stream_settings and sniffing."""
    enabled: Mapped[bool] = mapped_column(default=True)
    sort_order: Mapped[int] = mapped_column(default=0)
    total_bytes: Mapped[int | None] = mapped_column(BigId)
    expires_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)
    """Counts edits, so that two admins do not overwrite each other unseen."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Host(Base):
    """An endpoint under which an inbound is advertised in links."""

    __tablename__ = "hosts"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    inbound_id: Mapped[int] = mapped_column(ForeignKey("inbounds.id", ondelete="CASCADE"), index=True)
    remark: Mapped[str] = mapped_column(String(200), default="")
    address: Mapped[str] = mapped_column(String(255))
    port: Mapped[int | None]
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    enabled: Mapped[bool] = mapped_column(default=True)
    sort_order: Mapped[int] = mapped_column(default=0)
