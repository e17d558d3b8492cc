"""One environment for all services."""

import importlib

import msgspec
import pytest

from xfleet_runtime.known_settings import SETTINGS, all_settings, environment_of

STRUCTS = {
    "up": ("xfleet_cli.up.settings", "UpSettings"),
    "controller": ("xfleet_controller.config", "ControllerSettings"),
    "agent": ("xfleet_agent.settings", "AgentSettings"),
    "bot": ("xfleet_bot.settings", "BotSettings"),
}


@pytest.mark.parametrize("service", sorted(STRUCTS))
def test_the_table_names_exactly_what_each_service_knows(service: str) -> None:
    module, name = STRUCTS[service]
    kind = getattr(importlib.import_module(module), name)
    assert SETTINGS[service] == {field.name for field in msgspec.structs.fields(kind)}


def test_a_child_gets_its_own_settings_and_everything_that_is_none() -> None:
    given = {"PATH": "/bin", "XFLEET_METER_INTERVAL_S": "1", "XFLEET_ADMIN_PASSWORD": "p", "XFLEET_LOG_LEVEL": "debug"}
    assert environment_of("agent", given) == {
        "PATH": "/bin",
        "XFLEET_METER_INTERVAL_S": "1",
        "XFLEET_LOG_LEVEL": "debug",
    }
    assert "meter_interval_s" in all_settings()
