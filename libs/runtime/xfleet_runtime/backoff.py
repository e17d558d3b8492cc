"""Waiting longer after every failure, with jitter, so that a fleet does not come back all at once."""

import random


class Backoff:
    """Delays that double from `first_s` to `most_s`; each is drawn from the upper half of its step."""

    def __init__(self, first_s: float = 0.5, most_s: float = 30.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._failures_count = 0

    def next_s(self) -> float:
        """The next delay in seconds."""
        step = min(self._most_s, self._first_s * 2**self._failures_count)
        self._failures_count = min(self._failures_count + 1, 32)
        return step * random.uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret

    def reset(self) -> None:
        """Starts over after a success."""
        self._failures_count = 0
