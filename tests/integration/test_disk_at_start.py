"""A service that is started on a full or read-only disk says so in one line, changes nothing and ends."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.broker import FleetBroker, running_broker
from harness.disk import SmallDisk, small_disk
from harness.process import Outcome, run, script
from harness.xray import free_port
from xfleet_contracts import codec

SPOILED = {
    "full": (SmallDisk.fill, "No space left on device"),
    "read_only": (SmallDisk.make_read_only, "Read-only file system"),
}
