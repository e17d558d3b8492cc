"""`/healthz`, `/readyz` and `/metrics`: for whoever runs the controller."""

import secrets
from typing import Any

from litestar import Controller, Request, Response, get
from litestar.enums import MediaType
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from xfleet_controller.auth.rights import Forbidden
from xfleet_controller.backups.jobs import register_figures
from xfleet_controller.context import Context
from xfleet_controller.db import is_reachable
from xfleet_controller.edge import TheContext, client_address
from xfleet_controller.proxies import came_by_proxy, is_among, is_loopback, networks_of
from xfleet_controller.upkeep.disk import DiskFigures

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class OperationsDoor(Controller):
    """Without signing in; nothing secret is told."""

    path = "/"
    include_in_schema = False

    @get("/healthz", media_type=MediaType.TEXT)
    async def healthz(self) -> str:
        """The process answers."""
        return "ok\n"

    @get("/readyz")
    async def readyz(self, context: TheContext) -> Response[dict[str, str]]:
        """Database and broker answer."""
        checks = {
            "database": "ok" if await is_reachable(context.database) else "unreachable",
            "broker": "ok" if context.bus is None or context.bus.connected else "unreachable",
        }
        ready = set(checks.values()) == {"ok"}
        return Response(checks, status_code=HTTP_200_OK if ready else HTTP_503_SERVICE_UNAVAILABLE)

    @get("/metrics", media_type=MediaType.TEXT)
    async def metrics(self, request: Request[Any, Any, Any], context: TheContext) -> Response[bytes]:
        """Figures for Prometheus, over loopback or with the token."""
        if not _may_read(request, context):
            raise Forbidden("Metrics are for loopback, or for the metrics token.")
        registry = CollectorRegistry()
        registry.register(FleetFigures(context))
        register_figures(registry, context)
        registry.register(DiskFigures(context))
        return Response(generate_latest(context.registry) + generate_latest(registry), media_type=METRICS_TYPE)


class FleetFigures(Collector):
    """What presence knows, as gauges by server."""

    def __init__(self, context: TheContext) -> None:
        self._context = context

    def collect(self) -> list[GaugeMetricFamily]:
        """One family per figure."""
        presence = self._context.presence
        online = GaugeMetricFamily("xfleet_server_online", "Whether the server beats.", labels=["server"])
        applied = GaugeMetricFamily("xfleet_server_applied_revision", "Revision Xray runs.", labels=["server"])
        cpu = GaugeMetricFamily("xfleet_server_cpu_percent", "CPU in use.", labels=["server"])
        clients = GaugeMetricFamily("xfleet_server_clients_online", "Clients with a stream.", labels=["server"])
        spool = GaugeMetricFamily("xfleet_server_spool_batches", "Sealed batches waiting.", labels=["server"])
        for sid, seen in presence.list_seen():
            online.add_metric([sid], float(presence.is_online(sid)))
            applied.add_metric([sid], seen.beat.applied_revision)
            cpu.add_metric([sid], seen.beat.host.cpu_percent)
            clients.add_metric([sid], seen.beat.online_count)
            spool.add_metric([sid], seen.beat.spool.sealed_batches_count)
        refused = GaugeMetricFamily("xfleet_heartbeats_refused", "Refused heartbeats.", labels=["reason"])
        for reason, count in presence.refused_count.items():
            refused.add_metric([reason], count)
        ends = GaugeMetricFamily(
            "xfleet_certificate_expires_seconds", "Until the server's last identity ends.", labels=["server"]
        )
        now = self._context.clock.now()
        for sid, expires_at in sorted(self._context.certificate_ends.items()):
            ends.add_metric([sid], (expires_at - now).total_seconds())
        return [ends, online, applied, cpu, clients, spool, refused]


def _may_read(request: Request[Any, Any, Any], context: Context) -> bool:
    """By token, or over loopback: not what a proxy on loopback passes on, and not what a browser was lured to."""
    token = context.settings.metrics_token
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and secrets.compare_digest(given.encode(), token.encode()):
        return True
    address, host = client_address(request), request.url.hostname or ""
    if came_by_proxy(request.scope) or is_among(address, networks_of(context.settings.behind_proxy)):
        return False
    return is_loopback(address) and (host == "localhost" or is_loopback(host))
