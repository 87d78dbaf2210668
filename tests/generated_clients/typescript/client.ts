// A program as someone writes it against the types that openapi-typescript generates from `openapi.json`.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const api = createClient<paths>({
  baseUrl: process.env.TOKEN_SUPERVISOR_SERVER!,
  headers: { Authorization: `Bearer ${process.env.TOKEN_SUPERVISOR_API_KEY}` },
});
// The slash shows that generated clients encode names.
const params = { path: { idp: "gitlab", user: "typescript/alice" } };

// Connect a user: the response of the identity provider as it came.
const grant: components["schemas"]["Grant"] = JSON.parse(process.env.RESPONSE!);
const connected = await api.PUT("/v1/grants/{idp}/{user}", { params, body: grant });
assert.equal(connected.response.status, 201);
assert.equal(connected.data?.state, "fresh");

// Get a token, and the state.
const { data: token } = await api.GET("/v1/grants/{idp}/{user}/token", {
  params: { ...params, query: { min_ttl: 60 } },
});
assert(token);
assert(token.access_token.length > 0 && token.freshness === "fresh" && token.expires_in! > 60);
const { data: status } = await api.GET("/v1/grants/{idp}/{user}", { params });
assert.equal(status?.generation, token.generation);
assert.equal(status?.user, params.path.user);

// Long polls: 304 has no body.
const same = await api.GET("/v1/grants/{idp}/{user}/token", {
  params: { ...params, header: { "If-None-Match": `"g${token.generation}"` } },
});
assert.equal(same.response.status, 304);

// A problem says what to do.
const { error: problem } = await api.GET("/v1/grants/{idp}/{user}/token", {
  params: { path: { idp: "gitlab", user: "nobody" } },
});
assert.equal(problem?.code, "not_connected");
assert.equal(problem?.status, 404);

// Changes.
const { data: refreshed } = await api.POST("/v1/grants/{idp}/{user}/refresh", { params });
assert(refreshed && typeof refreshed.refreshed === "boolean" && refreshed.generation >= token.generation);
const { data: rejected } = await api.POST("/v1/grants/{idp}/{user}/rejected", {
  params,
  body: { generation: token.generation },
});
assert.equal(rejected?.idp, "gitlab");
const { data: held } = await api.POST("/v1/grants/{idp}/{user}/hold", { params, body: { reason: "a test" } });
assert(held?.held && held.held_reason === "a test");
assert.equal((await api.POST("/v1/grants/{idp}/{user}/release", { params })).data?.held, false);

// Many, page by page.
const { data: tokens } = await api.POST("/v1/tokens", {
  body: { items: [{ idp: "gitlab", user: params.path.user }, { idp: "gitlab", user: "nobody" }] },
});
assert(tokens?.items[0]?.token?.access_token);
assert.equal(tokens.items[1]?.problem?.code, "not_connected");
const users: string[] = [];
for (let after: string | undefined; ; ) {
  const query = { idp: "gitlab", held: false, limit: 1, ...(after && { after }) };
  const { data: page } = await api.GET("/v1/grants", { params: { query } });
  assert(page);
  users.push(...page.items.map((item) => item.user));
  if (!page.next) break;
  after = page.next;
}
assert(users.includes(params.path.user));
const { data: idps } = await api.GET("/v1/idps");
assert.deepEqual(idps?.items.map((idp) => idp.idp), ["gitlab"]);
const { data: metrics } = await api.GET("/metrics", { parseAs: "text" });
assert(metrics?.includes("token_supervisor_build_info"));
const { data: ready } = await api.GET("/readyz", { params: { query: { strict: true } } });
assert.equal(ready?.status, "ok");

// The end of it.
const ended = await api.DELETE("/v1/grants/{idp}/{user}", { params: { ...params, query: { revoke: true } } });
assert.equal(ended.response.status, 204);
console.log("done");
