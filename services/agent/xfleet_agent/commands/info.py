"""`info`: what this agent and its machine are."""

import platform

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_agent.version import agent_version
from xfleet_contracts.commands import AgentInfo

NAME = "info"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> AgentInfo:
        await parts.driver.learn_version()
        host = await parts.worker.run(parts.host.read)
        return AgentInfo(
            sid=parts.sid,
            instance=parts.instance,
            agent_version=agent_version(),
            xray_version=parts.driver.version,
            os=host.os,
            kernel=host.kernel,
            arch=host.arch,
            hostname=host.hostname,
            python_version=platform.python_version(),
            wanted_revision=parts.store.wanted_point.revision,
            applied_revision=parts.store.applied_point.revision,
        )

    return Verb(handler=handle)
