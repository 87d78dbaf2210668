#!/usr/bin/env python3
"""Calls an API with a user's token from a token-supervisor server. The standard library suffices.

    export TOKEN_SUPERVISOR_SERVER=http://127.0.0.1:8080 TOKEN_SUPERVISOR_API_KEY=tsk_...
    python3 client.py github alice https://api.github.com/user/repos

Copy `UserToken`, `call` and what they use into your program. If you have no server, `token-supervisor demo` runs one and
prints the name of the file with its API key.

Keys and tokens go to the servers that you name and to nobody else: redirects do not get them, the proxies in the environment
(`http_proxy` and the like) are ignored, and plain http is refused except on loopback. `--allow-http` permits it.
"""

import ipaddress
import json
import os
import sys
import time
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

# To go through a proxy, name it here: ProxyHandler({"https": "http://proxy.example.com:3128"}). `urlopen` itself would take
# the proxies in the environment, also for a server on loopback.
urlopen = build_opener(ProxyHandler({})).open


# Reasons that do not pass before an operator acts.
OPERATOR = ("held", "idp_held", "client_refused", "client_unknown", "unknown_error")


class Exposed(Exception):
    """A secret would be readable on the network; nothing was sent."""


def check(url, allow_http=False):
    """Returns the URL if others on the network cannot read what is sent there: https, or http on loopback."""
    parts = urlsplit(url)
    try:
        loopback = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        loopback = False
    if parts.scheme == "https" or parts.scheme == "http" and (loopback or allow_http):
        return url
    raise Exposed(f"{parts.scheme}://{parts.hostname}: use https, or allow plain http if you trust the network between")


class NoToken(Exception):
    """There is no token. `code` says what to do: `reconnect_required` and `not_connected`: send the user through
    consent; `unavailable` and `busy`: retry after `retry_after` seconds; `timeout`: retry."""

    def __init__(self, problem, retry_after):
        super().__init__(problem.get("detail", "the server gave no reason"))
        self.code = problem.get("code", "unavailable" if retry_after is not None else "internal")
        self.reason = problem.get("reason")
        self.retry_after = retry_after


class UserToken:
    """The token of one user at one identity provider."""

    def __init__(self, server, api_key, idp, user, account="", allow_http=False):
        self._grant = f"{check(server, allow_http).rstrip('/')}/v1/grants/{quote(idp, safe='')}/{quote(user, safe='')}"
        self._api_key, self._account = api_key, account
        self._known = None  # the server's last response

    def get(self, timeout=10):
        """Returns a valid token; waits up to `timeout` seconds for one. Call it before each request: while the last
        token is valid, the response is a mere 304."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0, deadline - time.monotonic())
            try:
                self._known = self._ask("/token", timeout=min(60, int(left))) or self._known
                return self._known["access_token"]
            except NoToken as error:
                if error.retry_after is None or error.retry_after > left:
                    raise
                time.sleep(error.retry_after)

    def rejected(self):
        """Reports a token that the API refused: the next `get` waits for another one. Any number of reports cause one
        refresh."""
        if self._known:
            self._ask("/rejected", body={"generation": self._known["generation"]})

    def _ask(self, path, body=None, **query):
        query = {"account": self._account, **query}
        request = Request(f"{self._grant}{path}?{urlencode(query)}", data=body and json.dumps(body).encode())
        # Unredirected headers are not sent to the target of a redirect.
        request.add_unredirected_header("Authorization", f"Bearer {self._api_key}")
        if body is None and self._known:
            request.add_unredirected_header("If-None-Match", f'"g{self._known["generation"]}"')
        try:
            with urlopen(request, timeout=query.get("timeout", 10) + 5) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code == 304:
                return None
            raise NoToken(*_problem(error)) from None
        except ValueError:
            raise NoToken({"detail": "the response is not JSON: check the server's URL"}, None) from None


def _problem(error):
    """Returns the problem document (RFC 9457) and `Retry-After`; a proxy in between may have sent something else."""
    retry_after = error.headers.get("Retry-After", "")
    try:
        problem = json.load(error)
    except ValueError:
        problem = {}
    return problem, int(retry_after) if retry_after.isdigit() else None


def call(token, url, allow_http=False):
    """Sends a GET with the token. Reports a refused token and sends the request once more with the next one."""
    for again in (True, False):
        request = Request(check(url, allow_http))
        request.add_unredirected_header("Authorization", f"Bearer {token.get()}")
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except HTTPError as error:
            if error.code != 401 or not again:
                raise
            token.rejected()


def main(idp, user, url, allow_http):
    server, api_key = os.environ["TOKEN_SUPERVISOR_SERVER"], os.environ["TOKEN_SUPERVISOR_API_KEY"]
    try:
        print(call(UserToken(server, api_key, idp, user, allow_http=allow_http), url, allow_http))
    except NoToken as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        if error.code in ("reconnect_required", "not_connected"):
            print(f"next: send {user} through consent", file=sys.stderr)
        # The exit codes are those of token-supervisor, so that scripts can tell the errors apart.
        if error.reason in OPERATOR:
            return 1
        return {"reconnect_required": 3, "unavailable": 4, "busy": 4, "timeout": 4, "not_connected": 5}.get(error.code, 1)
    except Exposed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # the server or the API cannot be reached, or the API refused
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--allow-http"]
    if len(arguments) != 3:
        sys.exit("usage: client.py [--allow-http] IDP USER URL")
    sys.exit(main(*arguments, allow_http="--allow-http" in sys.argv))
