"""Every command and apply, per server."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId, Json


class ServerTask(Base):
    """One order to one server; requests and answers are held redacted."""

    __tablename__ = "server_tasks"
    __table_args__ = (
        Index("ix_server_tasks_server_id_status", "server_id", "status"),
        Index("ix_server_tasks_created_at", "created_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"))
    operation: Mapped[str] = mapped_column(String(50))
    """What a person did, such as `add_client`, or the verb that was sent."""
    verb: Mapped[str] = mapped_column(String(50), default="")
    """The verb of an imperative task; empty for a change of state."""
    status: Mapped[str] = mapped_column(String(20), default="pending")
    """pending, running, completed, degraded, failed, expired, cancelled."""
    revision: Mapped[int | None] = mapped_column(BigId)
    """For changes of state: done when the server confirmed this revision or a later one."""
    command_id: Mapped[str] = mapped_column(String(64), default="")
    order_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The order's body with its secrets, while it may still be sent again; `request` shows it without them."""
    request: Mapped[Any] = mapped_column(Json, default=dict)
    response: Mapped[Any] = mapped_column(Json, default=dict)
    error: Mapped[Any | None] = mapped_column(Json)
    """{code, message, details} of what went wrong."""
    actor: Mapped[str] = mapped_column(String(100), default="")
    trace_id: Mapped[str] = mapped_column(String(64), default="")
    retry_count: Mapped[int] = mapped_column(default=0)
    took_ms: Mapped[int | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    lease_owner: Mapped[str] = mapped_column(String(64), default="")
    lease_until_at: Mapped[datetime | None]
