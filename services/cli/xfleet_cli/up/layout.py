"""Where things lie in the data directory, and the little that `xfleet up` itself remembers there."""

from pathlib import Path

import msgspec

from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private


class Layout(msgspec.Struct, frozen=True):
    """The data directory's places."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held while an `xfleet up` runs here."""
        return self.root / "up.lock"

    @property
    def memory(self) -> Path:
        """What the next start keeps: ports and base path."""
        return self.root / "up.json"

    @property
    def run(self) -> Path:
        """Who was started."""
        return self.root / "run.json"

    @property
    def logs(self) -> Path:
        """One log file per part."""
        return self.root / "logs"

    @property
    def broker(self) -> Path:
        """The broker's rendered configuration and store."""
        return self.root / "broker"

    @property
    def broker_listen(self) -> Path:
        """Written by the controller when the panel was told to open the broker to machines elsewhere."""
        return self.root / "broker-listen.json"

    @property
    def agent(self) -> Path:
        """The local agent's state."""
        return self.root / "agent"

    @property
    def agent_identity(self) -> Path:
        """Written by the agent when it has enrolled."""
        return self.agent / "identity.json"

    @property
    def tls(self) -> Path:
        """The panel's own certificate authority."""
        return self.root / "tls"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a resumed start keeps from the one before."""

    panel_port: int | None = None
    broker_port: int | None = None
    base_path: str = ""
    """With a leading slash and without a trailing one; empty for none."""


class _Listen(msgspec.Struct, frozen=True):
    host: str


def broker_host(layout: Layout) -> str | None:
    """The address on which the panel wants the broker to listen; None while it wants nothing."""
    try:
        return msgspec.json.decode(layout.broker_listen.read_bytes(), type=_Listen).host
    except (OSError, msgspec.MsgspecError):
        return None


def recall(layout: Layout) -> Memory | None:
    """What was remembered; None in a new directory. Raises `Unusable` when the file is broken."""
    try:
        return msgspec.json.decode(layout.memory.read_bytes(), type=Memory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(f"Cannot read {layout.memory}: {error.strerror}. Fix its rights.") from error
    except msgspec.MsgspecError as error:
        raise Unusable(f"{layout.memory} is broken: {error}. Restore it, or remove it to choose ports anew.") from error


def remember(layout: Layout, memory: Memory) -> None:
    """Keeps this for the next start."""
    try:
        write_private(layout.memory, msgspec.json.encode(memory))
    except OSError as error:
        raise Unusable(f"Cannot write {layout.memory}: {error.strerror}. Free space or fix its rights.") from error
