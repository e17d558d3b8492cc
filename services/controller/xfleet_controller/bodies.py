"""What `/api` takes for a body: JSON of exactly the type its handler names."""

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import SerializationException, ValidationException

_PATH = re.compile(r" - at `\$\.?(.*)`$")


class StrictRequest(Request[Any, Any, Any]):
    """A request whose body is decoded into its handler's type at once, where `"443"` is a text and never a number.

    The framework decodes to plain objects first and then converts them as leniently as query parameters.
    """

    async def json(self) -> Any:
        """The body as the handler's `data` type. Raises `ValidationException` or `SerializationException`."""
        field = self.route_handler.parsed_data_field
        wanted = Any if field is None else field.annotation
        try:
            return msgspec.json.decode(await self.body(), type=wanted)
        except msgspec.ValidationError as error:
            found = _PATH.search(str(error))
            extra = {"message": _PATH.sub("", str(error)), "key": found[1] if found else "", "source": "body"}
            raise ValidationException("The body is not what was expected.", extra=[extra]) from error
        except msgspec.DecodeError as error:
            raise SerializationException(str(error)) from error
