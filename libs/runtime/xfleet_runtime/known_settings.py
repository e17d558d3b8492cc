"""Which settings each service knows, so that all of them can live in one environment and a misspelt one still refuses.

The names are data because siblings never import each other; a test compares them with each service's Struct.
"""

from collections.abc import Mapping

from xfleet_runtime.settings import PREFIX

SETTINGS: dict[str, frozenset[str]] = {
    "up": frozenset(
        {
            "data_dir",
            "panel_port",
            "broker_port",
            "broker_websocket_port",
            "ready_file",
            "public",
            "base_path",
            "behind_proxy",
            "tls_cert",
            "tls_key",
            "bot_token",
            "bot_api_base",
            "log_level",
        },
    ),
    "controller": frozenset(
        {
            "data_dir",
            "database_url",
            "listen",
            "port",
            "base_path",
            "public_url",
            "tls_cert",
            "tls_key",
            "behind_proxy",
            "broker_url",
            "broker_listen_file",
            "metrics_token",
            "heartbeat_interval_s",
            "session_idle_days",
            "session_days",
            "profile_title",
            "profile_update_hours",
            "admin_password",
            "disk_low_bytes",
            "backup_passphrase",
            "backup_passphrase_file",
            "log_level",
        },
    ),
    "agent": frozenset(
        {
            "state_dir",
            "install_dir",
            "xray_binary",
            "broker_proxy",
            "renew_every_s",
            "meter_interval_s",
            "heartbeat_interval_s",
            "drift_interval_s",
            "probation_s",
            "drain_s",
            "trial_s",
            "log_paths",
            "disk_low_bytes",
            "log_level",
        },
    ),
    "cli": frozenset({"credentials"}),
    "bot": frozenset({"credentials_file", "token_file", "bot_token", "bot_api_base", "log_level"}),
}


def all_settings() -> frozenset[str]:
    """Every name that some service knows: what `load_settings` takes as `others`."""
    return frozenset(name for names in SETTINGS.values() for name in names)


def environment_of(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child that runs this service: without the settings that only its siblings know."""
    known = SETTINGS[service]
    return {
        variable: value
        for variable, value in environment.items()
        if not variable.startswith(PREFIX) or variable.removeprefix(PREFIX).lower() in known
    }
