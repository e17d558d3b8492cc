"""Logs: one line per event, for people on a terminal and JSON elsewhere; nothing secret is ever handed in."""

import logging
import sys
from typing import Any, TextIO

import structlog

from xfleet_runtime.errors import Unusable

LEVELS = ("debug", "info", "warning", "error", "critical")


def configure_logging(service: str, *, level: str = "info", stream: TextIO | None = None) -> None:
    """Sets up structlog and sends the standard library's loggers the same way. Raises `Unusable` for no level."""
    if level.lower() not in LEVELS:
        raise Unusable(f"There is no log level {level!r}. Use one of {', '.join(LEVELS)}.")
    out = stream or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)
        if out.isatty()
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    if out.isatty():
        shared.pop()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("nats", "httpcore", "aiosqlite", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("asyncio").addFilter(_is_worth_telling)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """False for what asyncio says each time a broker ends a TLS connection of nats-py."""
    return "eof_received() has no effect" not in record.getMessage()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; events are sentences, figures are keyword arguments."""
    return structlog.stdlib.get_logger(name)
