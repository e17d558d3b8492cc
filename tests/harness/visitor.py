"""A browser without a screen or JavaScript: follows links, fills in forms, keeps cookies."""

import re

import httpx

from harness.panel import ADMIN, PASSWORD


class Visitor:
    """Follows links and posts forms as a browser without JavaScript does."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.http = httpx.Client(timeout=20)
        self.token = ""

    def get(self, path: str, **headers: str) -> httpx.Response:
        answer = self.http.get(f"{self.base_url}{path}", headers=headers)
        if found := re.search(r'name="csrf_token" value="([^"]+)"', answer.text):
            self.token = found.group(1)
        return answer

    def post(self, path: str, fields: dict[str, str | list[str]], **headers: str) -> httpx.Response:
        return self.http.post(f"{self.base_url}{path}", data={"csrf_token": self.token, **fields}, headers=headers)

    def htmx_post(self, path: str, fields: dict[str, str | list[str]]) -> httpx.Response:
        headers = {"hx-request": "true", "hx-target": "div#dialog-content", "x-csrf-token": self.token}
        return self.http.post(f"{self.base_url}{path}", data=fields, headers=headers)

    def sign_in(self, password: str = PASSWORD) -> httpx.Response:
        return self.post("/login", {"username": ADMIN, "password": password})
