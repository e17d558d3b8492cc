"""Installs: what an agent fetches, checks by SHA-256 and puts in place; what was there before stays for a rollback.

Subject  fleet.cmd.<sid>.xray.install, .geofiles.update, .agent.update (controller -> agent)
Rhythm   on demand
Loss     repeated with the same id; an install that is torn leaves the old one in place
"""

from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Message, Number

XRAY_INSTALL = "xray.install"
GEOFILES_UPDATE = "geofiles.update"
AGENT_UPDATE = "agent.update"
MAX_DOWNLOAD_BYTES = 200 * 1024 * 1024
BUNDLED = "bundled"
"""The Xray that came with the agent."""


class DownloadFailed(Refusal):
    """The mirror could not be reached, or said no."""

    code = "download_failed"
    status = 502
    message = "The file could not be fetched."


class ChecksumWrong(Refusal):
    """What was fetched is not what was named."""

    code = "checksum_wrong"
    status = 422
    message = "The file's SHA-256 is not the one given; it was thrown away."


class InstallRefused(Refusal):
    """The new one does not start here; the old one is back."""

    code = "install_refused"
    status = 422
    message = "The new version does not work on this server; the old one is in place."


class VersionNotInstalled(Refusal):
    """A switch to a version that is not kept on the server."""

    code = "version_not_installed"
    status = 404
    message = "This version is not on the server; name an archive to fetch it from."


class InstallUnsupported(Refusal):
    """This agent was not installed in a way that it can replace itself."""

    code = "install_unsupported"
    status = 409
    message = "This agent cannot be upgraded from here."


class Download(Message, frozen=True, kw_only=True):
    """A file to fetch. It is trusted for its SHA-256 alone, so any mirror will do."""

    url: str
    """http or https."""
    sha256: str
    """64 hex digits."""


class XrayInstall(Message, frozen=True, kw_only=True):
    """Body of `xray.install`: an official release archive (zip), or back to one that is already here."""

    version: str
    """As `xray version` prints it; `bundled` for the one that came with the agent."""
    archive: Download | None = None
    """None: switch to a version installed before."""


class XrayInstalled(Message, frozen=True, kw_only=True):
    """Answer to `xray.install`: what runs now."""

    version: str
    previous: str
    available: tuple[str, ...] = ()


class GeoFile(Message, frozen=True, kw_only=True):
    """One geo file."""

    name: str
    """Such as `geoip.dat`: letters, digits, `-`, `_`, ending in `.dat`."""
    file: Download


class GeoFilesUpdate(Message, frozen=True, kw_only=True):
    """Body of `geofiles.update`."""

    files: tuple[GeoFile, ...]


class GeoFilesUpdated(Message, frozen=True, kw_only=True):
    """Answer to `geofiles.update`."""

    changed: tuple[str, ...] = ()
    """Files that are other than before; Xray reads them at its next start, which follows when one changed."""
    restarted: bool = False


class AgentUpdate(Message, frozen=True, kw_only=True):
    """Body of `agent.update`: the answer comes before the restart; the new process proves itself by its heartbeat."""

    version: str
    wheel: Download
    """xfleet's own wheel."""
    wheelhouse: tuple[Download, ...] = ()
    """Wheels of its dependencies, for machines that reach no package index; empty: those installed stay."""
    probation_s: int = 60
    """The new agent must be connected within this time, else the launcher goes back to the old one."""


class AgentUpdating(Message, frozen=True, kw_only=True):
    """Answer to `agent.update`."""

    version: str
    previous: str


class DiskSpace(Message, frozen=True, kw_only=True):
    """Details of the events `disk_low` and `disk_ok`."""

    free_bytes: Number
    total_bytes: Number
