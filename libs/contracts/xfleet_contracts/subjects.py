"""Every subject of the bus, spelled once. `*` forms are for whoever listens to all servers."""

import re

from xfleet_contracts.errors import MessageMalformed

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
ENROLL_PREFIX = "fleet.enroll"
CONTROLLER_INBOX = "_INBOX.c"

ALL_HEARTBEATS = "fleet.up.*.hb"
ALL_TRAFFIC = "fleet.up.*.traffic"
ALL_AGENT_EVENTS = "fleet.up.*.event"
ALL_AGENT_CALLS = "fleet.rpc.*.*"
ALL_ENROLLMENTS = "fleet.enroll.*"
ALL_CONTROLS = "fleet.ctl.*"
ALL_CLI_CONTROLS = "fleet.ctl.cli.*"
ALL_EVENTS = "fleet.evt.>"


def heartbeat(sid: str) -> str:
    """fleet.up.<sid>.hb"""
    return f"fleet.up.{sid}.hb"


def traffic(sid: str) -> str:
    """fleet.up.<sid>.traffic"""
    return f"fleet.up.{sid}.traffic"


def agent_event(sid: str) -> str:
    """fleet.up.<sid>.event"""
    return f"fleet.up.{sid}.event"


def log_lines(sid: str, lease: str) -> str:
    """fleet.up.<sid>.log.<lease>"""
    return f"fleet.up.{sid}.log.{lease}"


def blob(sid: str, transfer: str) -> str:
    """fleet.up.<sid>.blob.<transfer>"""
    return f"fleet.up.{sid}.blob.{transfer}"


def call(sid: str, method: str) -> str:
    """fleet.rpc.<sid>.<method>: an agent asks the controller."""
    return f"fleet.rpc.{sid}.{method}"


def command(sid: str, verb: str) -> str:
    """fleet.cmd.<sid>.<verb>: the controller orders; a verb may hold dots."""
    return f"fleet.cmd.{sid}.{verb}"


def commands(sid: str) -> str:
    """fleet.cmd.<sid>.>: what one agent listens to."""
    return f"fleet.cmd.{sid}.>"


def enroll(token_id: str) -> str:
    """fleet.enroll.<token id>"""
    return f"fleet.enroll.{token_id}"


def control(method: str) -> str:
    """fleet.ctl.<method>: the bot asks the controller, for a Telegram account."""
    return f"fleet.ctl.{method}"


def control_cli(method: str) -> str:
    """fleet.ctl.cli.<method>: a command line asks the controller, with an API token."""
    return f"fleet.ctl.cli.{method}"


def event(kind: str) -> str:
    """fleet.evt.<type>: something happened."""
    return f"fleet.evt.{kind}"


def agent_inbox(sid: str) -> str:
    """_INBOX.a.<sid>: where an agent wants its answers, and nowhere else."""
    return f"_INBOX.a.{sid}"


def is_controller_inbox(reply: str) -> bool:
    """Whether an answer to this reply subject can reach nobody but a controller that gave an order."""
    return reply.startswith(f"{CONTROLLER_INBOX}.") and not any(mark in reply for mark in "*> ")


def enroll_inbox(token_id: str) -> str:
    """_INBOX.e.<token id>: where somebody enrolling wants the answer."""
    return f"_INBOX.e.{token_id}"


def sid_of(subject: str) -> str:
    """The server a subject names (its third token), which the broker enforced. Raises `MessageMalformed`."""
    parts = subject.split(".")
    if len(parts) < 4 or parts[0] != "fleet" or not SLUG.fullmatch(parts[2]):  # noqa: PLR2004
        raise MessageMalformed("The subject names no server.", subject=subject)
    return parts[2]


def tail_of(subject: str) -> str:
    """What follows the server in a subject: the verb or method."""
    return subject.split(".", 3)[3]


def is_own_inbox(reply: str, sid: str) -> bool:
    """Whether an answer to this reply subject can reach nobody but that server's agent."""
    return reply.startswith(f"_INBOX.a.{sid}.") and "*" not in reply and ">" not in reply
