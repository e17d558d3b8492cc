"""`xray.config`: the configuration Xray would be started with now, without secrets."""

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.commands import XrayConfig
from xfleet_xraykit.render import render_config

NAME = "xray.config"
MAX_CLIENTS_SHOWN = 500


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> XrayConfig:
        state = await parts.applier.restart_state()
        if sum(len(each) for each in state.clients.values()) > MAX_CLIENTS_SHOWN:
            state.clients.clear()
        running = parts.driver.current
        config = render_config(state, api_socket=running.record.api_socket if running else "")
        return XrayConfig(config=codec.redact(config))

    return Verb(handler=handle)
