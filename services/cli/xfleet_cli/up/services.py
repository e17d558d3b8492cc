"""The parts of a start: which programs run with which arguments, and in which environment."""

import os
import signal
from collections.abc import Sequence

from xfleet_cli.up.parts import Broker, Service
from xfleet_cli.up.plan import Plan
from xfleet_cli.up.prepare import Prepared
from xfleet_nats.process import BrokerProcess
from xfleet_nats.render import BrokerSettings
from xfleet_runtime.known_settings import environment_of

AGENT_STOP_TIMEOUT_S = 30.0
"""Reading the last bytes, getting them receipted and stopping Xray."""


def init_arguments(plan: Plan) -> Sequence[str]:
    """For `xfleet-controller init`."""
    return (
        "--data-dir",
        str(plan.layout.root),
        "--local-agent",
        "--broker-host",
        plan.broker_host,
        "--broker-port",
        str(plan.broker_port),
        "--broker-websocket-port",
        str(plan.settings.broker_websocket_port),
    )


def broker_of(plan: Plan) -> Broker:
    """The nats-server over the rendered directory."""
    settings = BrokerSettings(directory=plan.layout.broker, host=plan.broker_host, port=plan.broker_port)
    return Broker(BrokerProcess(settings))


def controller_of(plan: Plan) -> Service:
    """The controller with the panel."""
    arguments = [
        "run",
        "--data-dir",
        str(plan.layout.root),
        "--listen",
        plan.host,
        "--port",
        str(plan.panel_port),
        "--broker-url",
        plan.broker_url,
        "--broker-listen-file",
        str(plan.layout.broker_listen),
    ]
    arguments += ["--base-path", plan.base_path]
    if plan.certificate is not None:
        arguments += ["--tls-cert", str(plan.certificate.chain), "--tls-key", str(plan.certificate.key)]
    if plan.settings.behind_proxy:
        arguments += ["--behind-proxy", plan.settings.behind_proxy]
    return Service(
        "controller",
        lambda: arguments,
        environment=child_environment("controller", plan),
        log_file=plan.layout.logs / "controller.log",
    )


def agent_of(plan: Plan, prepared: Prepared) -> Service:
    """The agent of server `local`; it enrolls with the one-time token as any agent does."""

    def arguments() -> Sequence[str]:
        given = ["run", "--state-dir", str(plan.layout.agent), "--manifest-file", str(prepared.manifest_file)]
        if prepared.enroll_token_file is not None and not plan.layout.agent_identity.exists():
            given += ["--token-file", str(prepared.enroll_token_file)]
        return given

    return Service(
        "agent",
        arguments,
        environment=child_environment("agent", plan),
        log_file=plan.layout.logs / "agent.log",
        stop_signal=signal.SIGINT,
        stop_timeout_s=AGENT_STOP_TIMEOUT_S,
    )


def bot_of(plan: Plan, prepared: Prepared) -> Service | None:
    """The Telegram bot; None without a token."""
    if not plan.settings.bot_token:
        return None
    environment = child_environment("bot", plan)
    environment["XFLEET_BOT_TOKEN"] = plan.settings.bot_token
    if plan.settings.bot_api_base:
        environment["XFLEET_BOT_API_BASE"] = plan.settings.bot_api_base
    arguments = ("run", "--credentials-file", str(prepared.bot_credentials_file))
    return Service("bot", lambda: arguments, environment=environment, log_file=plan.layout.logs / "bot.log")


def child_environment(service: str, plan: Plan) -> dict[str, str]:
    """This process's environment, without what belongs to other parts."""
    environment = environment_of(service, os.environ)
    if plan.settings.log_level != "info":
        environment["XFLEET_LOG_LEVEL"] = plan.settings.log_level
    return environment
