"""The panel's API as the demo uses it: what a script of an operator would do."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from xfleet_runtime.errors import Unusable

TIMEOUT_S = 40.0
WAIT_S = 20


class Panel:
    """Signed in to `/api/v1`."""

    def __init__(self, base_url: str) -> None:
        self._base = base_url.rstrip("/")
        self._token = ""

    async def sign_in(self, password: str) -> None:
        """As `admin`."""
        answer = await self.call("POST", "/session", {"username": "admin", "password": password})
        self._token = answer["token"]

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON. Raises `Unusable` with what the panel said."""
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310  our own panel on loopback
            f"{self._base}/api/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"}
            | ({"authorization": f"Bearer {self._token}"} if self._token else {}),
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  as above
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:300]
            raise Unusable(f"The demo's panel refused {method} {path}: {said}") from error
        except (OSError, ValueError) as error:
            raise Unusable(f"The demo's panel did not answer {method} {path}: {error}") from error
