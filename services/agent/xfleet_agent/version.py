"""Which release of the agent this is."""

from importlib.metadata import PackageNotFoundError, version


def agent_version() -> str:
    """The installed version."""
    try:
        return version("xfleet")
    except PackageNotFoundError:
        return "0"
