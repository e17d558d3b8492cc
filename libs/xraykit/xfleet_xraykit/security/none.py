"""No security of the transport: the protocol's own, or a proxy's in front."""

from collections.abc import Iterator, Mapping
from typing import Any

from xfleet_contracts.desired_state import ClientBody
from xfleet_xraykit.problems import Problem


class NoSecurity:
    """Nothing to set."""

    name = "none"
    settings_keys: tuple[str, ...] = ()

    def lint(self, stream: Mapping[str, Any], transport: str) -> Iterator[Problem]:  # noqa: ARG002
        """Nothing can be wrong."""
        return iter(())

    def complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Unchanged."""
        return settings

    def render(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Unchanged."""
        return settings

    def link_params(self, settings: Mapping[str, Any], client: ClientBody) -> dict[str, str]:  # noqa: ARG002
        """Nothing."""
        return {}

    def client_settings(self, params: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}


SECURITY = NoSecurity()
