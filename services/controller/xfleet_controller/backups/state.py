"""What a running controller knows of its backups beside what lies on disk."""

import asyncio
from datetime import datetime


class BackupState:
    """The last failure, the newest backup, and a bell for the schedule."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set when the schedule should be read again."""
        self.making = asyncio.Lock()
        """Held while a backup is made: one at a time."""
        self.last_error = ""
        """Why the last backup failed; empty when it did not."""
        self.newest_at: datetime | None = None
