"""What every page shows around its content, and the parts that pages share: forms, options, paging."""

import msgspec

from xfleet_controller.auth.rights import grants

ALL_SERVERS = "all"
MAX_PAGE = 1_000_000
"""Pages beyond it are asked for by nobody but a machine."""


class ShellView(msgspec.Struct, frozen=True, kw_only=True):
    """The frame of a page for one signed-in admin."""

    username: str
    role: str
    csrf_token: str
    single_server: bool
    """True when the installation has one server: selectors and server columns are left out."""
    version: str
    running_tasks: int = 0
    servers: "tuple[OptionView, ...]" = ()
    """All servers, for the selector; empty where there is nothing to select."""
    server_id: int | None = None
    """The server pages are narrowed to; None: all."""
    scope_path: str = ""
    """Where the selector leads: this page; empty where a page is not about servers."""
    language: str = "en"
    direction: str = "ltr"
    allowed: frozenset[str] = frozenset({"*"})
    """Actions of the role."""

    def may(self, action: str) -> bool:
        """Whether to offer what needs this action."""
        return grants(self.allowed, action)

    @property
    def initials(self) -> str:
        """Two letters for the avatar."""
        return self.username[:2].upper()

    @property
    def server(self) -> str:
        """The value of `?server=` that keeps the choice; empty with one server."""
        return "" if self.single_server else str(self.server_id or ALL_SERVERS)

    @property
    def server_name(self) -> str:
        """The server pages are narrowed to; empty for all."""
        return next((each.label for each in self.servers if each.value == str(self.server_id)), "")


class OptionView(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of a select, a radio group or a list of check boxes."""

    value: str
    label: str
    hint: str = ""
    chosen: bool = False
    disabled: bool = False


class FormView(msgspec.Struct, frozen=True, kw_only=True):
    """What a form shows: the values as typed, and beside them what is wrong."""

    values: dict[str, str]
    errors: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Message per field name; the empty name holds what concerns the whole form."""
    options: dict[str, tuple[OptionView, ...]] = msgspec.field(default_factory=dict[str, tuple[OptionView, ...]])

    def value(self, name: str) -> str:
        """The value of a field; empty when it was not filled in."""
        return self.values.get(name, "")

    def checked(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.values.get(name, "") not in {"", "0", "false", "off"}

    def error(self, name: str) -> str:
        """What is wrong with a field; empty when nothing is."""
        return self.errors.get(name, "")

    def choices(self, name: str) -> tuple[OptionView, ...]:
        """The options of a select."""
        return self.options.get(name, ())


class PagingView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a page of a list stands in the whole."""

    page: int
    page_size: int
    total: int

    @property
    def page_count(self) -> int:
        """Number of pages, at least 1."""
        return max(1, -(-self.total // self.page_size))

    @property
    def first(self) -> int:
        """Position of the first row shown; 0 when there is none."""
        return min(self.total, (self.page - 1) * self.page_size + 1) if self.total else 0

    @property
    def last(self) -> int:
        """Position of the last row shown."""
        return min(self.total, self.page * self.page_size)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Page numbers to offer: the ends and the neighbours; 0 stands for a gap."""
        near = {1, self.page_count, *range(self.page - 1, self.page + 2)}
        shown = sorted(number for number in near if 1 <= number <= self.page_count)
        numbers: list[int] = []
        for number in shown:
            if numbers and number - numbers[-1] > 1:
                numbers.append(0)
            numbers.append(number)
        return tuple(numbers)


class ErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, for a person: a number, a sentence, and an id to quote."""

    status: int
    title: str
    message: str
    error_id: str = ""
    """Names the log line of a bug; empty for an expected refusal."""
    trace_id: str = ""
    """Names the request in the log."""
