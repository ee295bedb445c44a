import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { type Target, targetIn } from "./target.ts";

function look(line: string, headers: Record<string, string> = {}): Target | undefined {
  const [method = "GET", url = "/"] = line.split(" ");
  return targetIn(
    { method, url, headers: { host: "localhost:7423", ...headers } } as unknown as IncomingMessage,
    "box.example",
  );
}

test("a sandbox is named by path, by host and by header, in the order of the application", () => {
  const id = "sb-01234567";
  const rest = { kind: "rest", sandbox: id };
  for (const path of ["", "/", "/exec", "/exec?x=/y", "/ports/80/a/../b", "?a=b"]) {
    assert.deepEqual(look(`POST /api/v1/sandboxes/${id}${path}`), rest, path);
  }
  assert.deepEqual(look("GET /api/v1/sandboxes/we%62-1/logs"), { kind: "rest", sandbox: "web-1" });
  assert.deepEqual(look(`GET http://localhost/api/v1/sandboxes/${id}`), rest, "a whole URL");
  assert.deepEqual(look(`GET /api/v1/x/../sandboxes/${id}`), rest, "as the application has it");
  for (const path of ["/api/v1/sandboxes/admission", "/api/v1/sandboxesx/a", "/api/v1/images", "/", "/console"]) {
    assert.equal(look(`GET ${path}`), undefined, path);
  }
  assert.deepEqual(look(`GET /v2/sandboxes/${id}/logs`), { kind: "control", sandbox: id });
  assert.deepEqual(look(`DELETE /sandboxes/${id}`), { kind: "control", sandbox: id });
  for (const path of ["/sandboxes/metrics?sandbox_ids=x", "/templates", "/v3/templates/x", "/snapshots"]) {
    assert.equal(look(`GET ${path}`), undefined, path);
  }
  // Below a preview's host every path is the guest's.
  const preview = { host: `3000-${id}.box.example:7423` };
  for (const path of ["/", `/api/v1/sandboxes/other`, "/sandboxes/other", "/v2/sandboxes"]) {
    assert.deepEqual(look(`GET ${path}`, preview), { kind: "preview", sandbox: id, port: 3000 }, path);
  }
  assert.deepEqual(look("GET /", { ...preview, "e2b-traffic-access-token": "t" }), {
    kind: "e2b",
    sandbox: id,
    port: 3000,
  });
  assert.deepEqual(look("GET /", { host: `49983-${id}.box.example` }), { kind: "e2b", sandbox: id, port: 49983 });
  const header = { "e2b-sandbox-id": id, "e2b-sandbox-port": "49999" };
  assert.deepEqual(look("POST /execute", header), { kind: "e2b", sandbox: id, port: 49_999 });
  // No header makes another sandbox of a host's.
  assert.deepEqual(look("GET /", { ...header, host: "3000-web.box.example" }), {
    kind: "preview",
    sandbox: "web",
    port: 3000,
  });
  assert.equal(look("GET /", { host: "3000-web.other.example" }), undefined);
});

test("creates and lists are told from the rest", () => {
  assert.deepEqual(look("POST /api/v1/sandboxes"), { kind: "create", e2b: false });
  assert.deepEqual(look("POST /v2/sandboxes"), { kind: "create", e2b: true });
  assert.deepEqual(look("GET /api/v1/sandboxes/?x"), { kind: "list", of: "sandboxes", e2b: false });
  assert.deepEqual(look("HEAD /sandboxes"), { kind: "list", of: "sandboxes", e2b: true });
  for (const [path, of] of [
    ["sandboxes/stats", "stats"],
    ["checkpoints", "checkpoints"],
  ])
    assert.deepEqual(look(`GET /api/v1/${path}`), { kind: "list", of, e2b: false });
  assert.equal(look("DELETE /api/v1/sandboxes"), undefined);
});
