"""The ledger's own figures."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class LedgerMetrics:
    """Counters of the ingest, in the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batches = Counter(
            "xfleet_ledger_batches_total", "Traffic batches, by what became of them.", ["outcome"], registry=registry
        )
        """accepted, duplicate, fork, rejected, delayed"""
        self.rows = Counter("xfleet_ledger_rows_total", "Client and tag rows committed.", registry=registry)
        self.rejects = Counter(
            "xfleet_ledger_rejects_total", "Batches or rows set aside, by reason.", ["reason"], registry=registry
        )
        self.commit_seconds = Histogram(
            "xfleet_ledger_commit_seconds", "Time of one ingest transaction.", registry=registry
        )
        self.lag_seconds = Gauge(
            "xfleet_ledger_lag_seconds", "Age of the oldest batch of the last commit when it was committed.",
            registry=registry,
        )  # fmt: skip
        self.delays = Counter(
            "xfleet_ledger_delays_total", "Fetches given back because the database was away.", registry=registry
        )
        self.waiting_bodies = Gauge(
            "xfleet_ledger_rollup_waiting", "Batches not rolled up yet, at the last look.", registry=registry
        )
