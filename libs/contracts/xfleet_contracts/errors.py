"""Refusals: the expected "no", each a leaf class with a stable word and a sentence a person reads."""

from typing import Any, ClassVar

from xfleet_contracts.message import Message


class ErrorBody(Message, frozen=True, kw_only=True):
    """How a refusal looks on the bus and, inside problem details, over HTTP."""

    code: str
    """Stable word, for programs."""
    message: str
    """Sentence, for people."""
    details: dict[str, Any] = {}
    """What else the asker can use, such as `field` or `path`."""


class Refusal(Exception):  # noqa: N818  a refusal is an answer, not an error
    """An expected no. Leaf classes set `code`, `status` and a default `message`."""

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 400
    """HTTP status at the web's edge."""
    message: ClassVar[str] = "The request was refused."

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.text = message or self.message
        self.details: dict[str, Any] = details
        super().__init__(self.text)

    def body(self) -> ErrorBody:
        """This refusal in the form that crosses the bus."""
        return ErrorBody(code=self.code, message=self.text, details=self.details)


class RemoteRefusal(Refusal):
    """A refusal that came back over the bus; carries the other side's word."""

    code = "remote"
    status = 409

    def __init__(self, body: ErrorBody) -> None:
        super().__init__(body.message, **body.details)
        self.remote_code = body.code

    def body(self) -> ErrorBody:
        """The other side's refusal, unchanged."""
        return ErrorBody(code=self.remote_code, message=self.text, details=self.details)


class MessageTooLarge(Refusal):
    """A message over the bus's limit."""

    code = "too_large"
    status = 413
    message = "The message is larger than the bus allows."


class MessageMalformed(Refusal):
    """Bytes that are not the message they should be."""

    code = "malformed"
    status = 422
    message = "The message could not be read."
