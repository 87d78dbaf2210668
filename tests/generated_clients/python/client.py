"""A program as someone writes it against the package that openapi-python-client generates from `openapi.json`."""

import json
import os
from http import HTTPStatus

from token_supervisor import AuthenticatedClient
from token_supervisor.api.grants import (
    connect, disconnect, get_status, get_token, hold, list_grants, refresh, release, report_rejected,
)
from token_supervisor.api.idps import list_idps
from token_supervisor.api.server import get_metrics, get_readyz
from token_supervisor.api.tokens import get_tokens
from token_supervisor.models import (
    Batch, BatchItem, Grant, Health, Idps, Page, Problem, ProblemCode, Reason, Refreshed, Rejected, Status, StatusState,
    Token, TokenFreshness, Tokens,
)
from token_supervisor.types import UNSET, Unset

api = AuthenticatedClient(os.environ["TOKEN_SUPERVISOR_SERVER"], os.environ["TOKEN_SUPERVISOR_API_KEY"])
IDP = "gitlab"
USER = "python/alice"  # the slash shows that generated clients encode names

# Connect a user: the response of the identity provider as it came.
grant = Grant.from_dict(json.loads(os.environ["RESPONSE"]))
connected = connect.sync_detailed(IDP, USER, client=api, body=grant)
assert connected.status_code == HTTPStatus.CREATED
assert isinstance(connected.parsed, Status) and connected.parsed.state is StatusState.FRESH

# Get a token, and the state.
token = get_token.sync(IDP, USER, client=api, min_ttl=60)
assert isinstance(token, Token)
assert token.access_token and token.freshness is TokenFreshness.FRESH
assert token.expires_at and token.expires_at.tzinfo and token.expires_in and token.expires_in > 60
status = get_status.sync(IDP, USER, client=api)
assert isinstance(status, Status) and status.generation == token.generation and status.user == USER

# Long polls: 304 has no body.
same = get_token.sync_detailed(IDP, USER, client=api, if_none_match=f'"g{token.generation}"')
assert same.status_code == HTTPStatus.NOT_MODIFIED and same.parsed is None

# A problem says what to do.
problem = get_token.sync(IDP, "nobody", client=api)
assert isinstance(problem, Problem)
assert problem.code is ProblemCode.NOT_CONNECTED and problem.status == 404

# Changes.
refreshed = refresh.sync(IDP, USER, client=api)
assert isinstance(refreshed, Refreshed)
assert isinstance(refreshed.refreshed, bool) and refreshed.generation >= token.generation
rejected = report_rejected.sync(IDP, USER, client=api, body=Rejected(generation=token.generation))
assert isinstance(rejected, Status)
held = hold.sync(IDP, USER, client=api, body=Reason("a test"))
assert isinstance(held, Status) and held.held and held.held_reason == "a test"
released = release.sync(IDP, USER, client=api)
assert isinstance(released, Status) and not released.held

# Many, page by page.
tokens = get_tokens.sync(client=api, body=Batch([BatchItem(IDP, USER), BatchItem(IDP, "nobody")]))
assert isinstance(tokens, Tokens)
first, second = tokens.items
assert first.token and first.token.access_token
assert second.problem and second.problem.code is ProblemCode.NOT_CONNECTED
users: list[str] = []
after: str | Unset = UNSET
while True:
    page = list_grants.sync(client=api, idp=IDP, held=False, limit=1, after=after)
    assert isinstance(page, Page)
    users += [item.user for item in page.items]
    if page.next_ is None:
        break
    after = page.next_
assert USER in users
idps = list_idps.sync(client=api)
assert isinstance(idps, Idps) and [idp.idp for idp in idps.items] == [IDP]
metrics = get_metrics.sync(client=api)
assert isinstance(metrics, str) and "token_supervisor_build_info" in metrics
ready = get_readyz.sync(client=api, strict=True)
assert isinstance(ready, Health) and ready.status == "ok"

# The end of it.
ended = disconnect.sync_detailed(IDP, USER, client=api, revoke=True)
assert ended.status_code == HTTPStatus.NO_CONTENT
print("done")
