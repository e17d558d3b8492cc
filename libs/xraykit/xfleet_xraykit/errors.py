"""What can go wrong between us and a running Xray."""

from xfleet_contracts.errors import Refusal


class XrayDown(Exception):  # noqa: N818  a state, not a mistake
    """Nobody answers on Xray's API socket."""


class XrayHung(Exception):  # noqa: N818  a state, not a mistake
    """Xray holds its API socket but did not answer in time."""


class XrayRefused(Refusal):
    """Xray answered no; the text is its own."""

    code = "xray_refused"
    status = 422
    message = "Xray refused the change."


class AccountMismatch(Refusal):
    """An account of another protocol: sending it would crash Xray."""

    code = "account_mismatch"
    status = 422
    message = "The account is of another protocol than the inbound."


class EmptyOrder(Refusal):
    """An order without its body: sending it would crash Xray."""

    code = "empty_order"
    status = 422
    message = "The order to Xray has no body."


class InboundUnknown(Refusal):
    """Xray runs no inbound of that tag."""

    code = "inbound_unknown"
    status = 404
    message = "Xray runs no such inbound."


class RuleNeedsRestart(Refusal):
    """A routing rule that cannot be put into a running Xray."""

    code = "rule_needs_restart"
    status = 409
    message = "This routing rule can only be loaded when Xray starts."


class ConfigRefused(Refusal):
    """Xray did not accept a configuration and does not say why."""

    code = "config_refused"
    status = 422
    message = "Xray did not accept the configuration."
