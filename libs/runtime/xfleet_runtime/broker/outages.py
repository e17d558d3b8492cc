"""What can go wrong on the way over the bus. Outages, not refusals: the caller decides whether to try again."""


class BrokerOutage(Exception):  # noqa: N818  an outage is named for what is missing
    """The bus did not carry a message; leaf classes say how much is known."""


class Disconnected(BrokerOutage):
    """There is no connection now, or it broke while waiting: for a request the outcome is unknown."""


class NoResponders(BrokerOutage):
    """Nobody listens on that subject: the message certainly reached no one."""


class RequestTimedOut(BrokerOutage):
    """No answer in time: the outcome is unknown, repeat with the same id."""


class PublishNotStored(BrokerOutage):
    """The stream answered that it did not take the message."""

    def __init__(self, description: str, err_code: int) -> None:
        super().__init__(f"{description} ({err_code})")
        self.err_code = err_code
        """JetStream's own number, such as 10077 for a full subject."""
