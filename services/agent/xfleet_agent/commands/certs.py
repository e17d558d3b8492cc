"""`certs.list`, `certs.get` and `certs.generate`: domain certificates on this machine, whose keys never leave it."""

from datetime import UTC, datetime

import msgspec

from xfleet_agent.aside import aside
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.care import (
    CERTS_GENERATE,
    CERTS_GET,
    CERTS_LIST,
    CertificateGenerate,
    CertificateInfo,
    CertificateList,
    CertificateName,
    CertificatePem,
)


def verbs(parts: Parts) -> dict[str, Verb]:
    """Name to how it is carried out."""

    async def on_list(_body: msgspec.Raw) -> CertificateList:
        return CertificateList(certificates=await aside(lambda: parts.certificates().list()))

    async def on_get(body: msgspec.Raw) -> CertificatePem:
        name = codec.decode(bytes(body), CertificateName).name
        return await aside(lambda: parts.certificates().get(name))

    async def on_generate(body: msgspec.Raw) -> CertificateInfo:
        order = codec.decode(bytes(body), CertificateGenerate)
        now = datetime.fromtimestamp(parts.clock.now_ms() / 1000, UTC)
        return await aside(lambda: parts.certificates().generate(order.domains, order.days_count, now=now))

    return {
        CERTS_LIST: Verb(handler=on_list),
        CERTS_GET: Verb(handler=on_get),
        CERTS_GENERATE: Verb(handler=on_generate, at_once=1),
    }
