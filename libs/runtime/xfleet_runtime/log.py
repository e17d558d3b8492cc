"""Logs: one line per event, for people on a terminal and JSON elsewhere; nothing secret is ever handed in."""

import logging
import sys
from pathlib import Path
from typing import Any, TextIO

import structlog

from xfleet_runtime.errors import Unusable

LEVELS = ("debug", "info", "warning", "error", "critical")


FILE_BYTES = 8 * 1024 * 1024
"""A log file is set aside at this size, and one older is kept."""


def configure_logging(
    service: str, *, level: str = "info", stream: TextIO | None = None, file: Path | None = None
) -> None:
    """Sets up structlog and sends the standard library's loggers the same way. Raises `Unusable` for no level.

    With `file` the same goes there as JSON, as far as its directory and the disk allow.
    """
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
    root.handlers[:] = [handler, *([_to_file(file, shared)] if file else [])]
    root.setLevel(level.upper())
    for noisy in ("nats", "httpcore", "aiosqlite", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("asyncio").addFilter(_is_worth_telling)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)


def _to_file(file: Path, before: list[Any]) -> logging.Handler:
    from logging.handlers import RotatingFileHandler  # noqa: PLC0415  only services with a log of their own need it

    handler = RotatingFileHandler(
        file, maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8", delay=True, errors="backslashreplace"
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(sort_keys=False),
            ],
        ),
    )
    handler.handleError = _ignore
    return handler


def _ignore(record: logging.LogRecord) -> None:
    """A full disk must not make every line two."""


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """False for what asyncio says each time a broker ends a TLS connection of nats-py."""
    return "eof_received() has no effect" not in record.getMessage()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; events are sentences, figures are keyword arguments."""
    return structlog.stdlib.get_logger(name)
