"""What the service counts, for Prometheus. Numbers only: no name, no address, no word that somebody asked."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "vlfer_requests_total", "Requests answered.", ["method", "route", "status"], registry=own
        )
        self.seconds = Histogram(
            "vlfer_request_seconds", "Time to the answer.", ["route"], buckets=_SECONDS, registry=own
        )
        self.in_work = Gauge("vlfer_requests_in_work", "Requests being answered.", registry=own)
        self.faces = Counter("vlfer_faces_total", "Faces encoded.", registry=own)
        self.batch = Histogram(
            "vlfer_batch_faces",
            "Faces that went through the tower at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=own,
        )
        self.jobs = Gauge("vlfer_jobs", "Videos by state.", ["state"], registry=own)
        self.decoders_lost = Counter(
            "vlfer_decoders_lost_total", "Decoding processes that were ended or died.", registry=own
        )
        memory = Gauge("vlfer_resident_bytes", "Memory of the serving process.", registry=own)
        memory.set_function(resident_bytes)

    def text(self) -> bytes:
        """Return everything in the format of Prometheus."""
        return bytes(generate_latest(self.registry))


def resident_bytes(pid: int | str = "self") -> float:
    """Return the resident memory of a process; 0 where the system does not tell."""
    try:
        return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0.0
