"""Passwords: argon2id in a thread, few at a time, so that a flood of logins neither blocks the loop nor eats memory."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from xfleet_controller.errors import FieldError

MIN_LENGTH = 8
MAX_LENGTH = 200
CONCURRENT_COUNT = 2


class Passwords:
    """Hashes and checks; `cheap` is for tests, where the cost is not the point."""

    def __init__(self, *, cheap: bool = False) -> None:
        self._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1) if cheap else PasswordHasher()
        self._slots = asyncio.Semaphore(CONCURRENT_COUNT)
        self._nobody = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The hash to store."""
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def fits(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one; takes as long when there is no account."""
        async with self._slots:
            return await asyncio.to_thread(self._check, stored, password)

    def _check(self, stored: str | None, password: str) -> bool:
        try:
            self._hasher.verify(stored or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None


def password_errors(password: str, field: str = "password") -> list[FieldError]:
    """What is wrong with a new password."""
    if len(password) < MIN_LENGTH:
        return [FieldError(field, f"The password needs at least {MIN_LENGTH} characters.", "too_short")]
    if len(password) > MAX_LENGTH:
        return [FieldError(field, f"The password may have at most {MAX_LENGTH} characters.", "too_long")]
    return []
