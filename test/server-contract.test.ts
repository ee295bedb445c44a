/** Every documented route against a real server and real sandboxes; who may call what; and input that means harm. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import { tar as tarOf } from "./images-support.ts";
import { type Answer, Contract } from "./server-contract-support.ts";
import { Server } from "./server-support.ts";

const KEYS = {
  read: "key-that-reads-and-is-long-enough",
  use: "key-that-uses-and-is-long-enough",
  admin: "key-that-rules-and-is-long-enough",
} as const;
const CONFIG = `
auth:
  admin_api_key: ${KEYS.admin}
  api_key: ${KEYS.use}
  keys: [{ name: reader, key: ${KEYS.read}, scopes: [read] }]
server: { body_timeout: 1s, header_timeout: 2s, max_json_bytes: 20000, cors_allowed_origins: ["https://allowed.example"] }
defaults: { max_ttl: 3h, max_exec_timeout: 1m }
`;
const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };
/** What takes an image, a machine or a fleet of its own is held to its schemas where that is: code.test.ts, conformance.test.ts, fleet-server.test.ts. */
const ELSEWHERE = [
  /\/sandboxes\/\{id\}\/(code|contexts)/,
  /\/environments\//,
  /\/admin\/tenants\/\{id\}/,
  /\/nodes\/\{node\}/,
  /\/sandboxes\/\{id\}\/move/,
];
const NOBODY = {
  id: "sb-00000000",
  name: "none",
  key: "0".repeat(64),
  process: "1",
  resource: "x",
  member: "x",
  port: "8080",
  owner: "nobody",
  path: "x",
  node: "none",
};

describe("the contract", () => {
  let server: Server;
  let contract: Contract;
  let id: string;
  const headers = { "x-api-key": KEYS.admin };

  before(async () => {
    server = await Server.create(CONFIG);
    contract = await Contract.of(server.url, KEYS.admin);
  });
  after(() => server[Symbol.asyncDispose]());

  type Options = NonNullable<Parameters<Contract["call"]>[2]>;
  const ask = async (method: string, path: string, options: Options = {}): Promise<Answer> =>
    contract.call(method, path, { ...options, at: { id, ...options.at }, headers: { ...headers, ...options.headers } });
  const good = async (method: string, path: string, options: Options = {}): Promise<Answer> => {
    const answer = await ask(method, path, options);
    assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.text}`);
    return answer;
  };
  const socket = (path: string): WebSocket =>
    new WebSocket(`${server.url.replace("http", "ws")}/api/v1/sandboxes/${id}/${path}`, { headers });

  test("a preflight needs no key, and only configured origins are let in", async () => {
    const preflight = (origin: string) =>
      fetch(`${server.url}/api/v1/sandboxes`, {
        method: "OPTIONS",
        headers: { origin, "access-control-request-method": "POST" },
      });
    const allowed = await preflight("https://allowed.example");
    assert.equal(allowed.status, 204);
    assert.equal(allowed.headers.get("access-control-allow-origin"), "https://allowed.example");
    assert.equal((await preflight("https://other.example")).status, 403);
  });

  test("unknown things are 404 and wrong bodies 400, on every route", async () => {
    for (const operation of contract.operations) {
      const path = operation.path.slice("/api/v1".length);
      if (operation.hasJsonBody) {
        const { status, body } = await contract.call(operation.method, path, { at: NOBODY, headers, raw: "{not json" });
        assert.equal(status, 400, path);
        assert.equal(body.code, "BAD_REQUEST");
        for (const raw of ["[]", "7", '"text"']) {
          const answer = await contract.call(operation.method, path, { at: NOBODY, headers, raw });
          assert.ok([400, 404].includes(answer.status), `${operation.method} ${path} ${raw}: ${answer.status}`);
        }
      }
    }
    for (const path of ["", "/logs", "/stats", "/files/list"]) {
      assert.equal((await ask("GET", `/sandboxes/{id}${path}`, { at: { id: "sb-00000000" } })).body.code, "NOT_FOUND");
    }
    assert.equal((await ask("DELETE", "/sandboxes/{id}", { at: { id: "sb-00000000" } })).body.status, "destroyed");
  });

  test("every route does what it says", async () => {
    for (const path of [
      "/health",
      "/live",
      "/ready",
      "/metrics",
      "/metrics/prometheus",
      "/diagnostics",
      "/system/stats",
      "/admin/metrics",
      "/admin/metrics/prometheus",
      "/admin/diagnostics",
      "/providers",
      "/admin/providers",
      "/workers",
      "/admin/workers",
      "/pool/status",
      "/quotas",
      "/admin/quotas",
      "/quotas/summary",
      "/sandboxes/stats",
      "/secrets",
      "/system/history",
      "/doctor",
      "/events/history",
      "/config",
      "/images",
      "/snapshots",
      "/checkpoints",
      "/templates",
      "/sandboxes",
    ])
      await good("GET", path);
    assert.ok(!(await good("GET", "/diagnostics")).text.includes(KEYS.use), "a key is shown");
    await good("PATCH", "/config", { json: { "defaults.ttl": "45m" } });
    assert.equal((await ask("PATCH", "/config", { json: { "auth.api_key": "mine" } })).status, 400);
    const names = (await good("GET", "/providers")).body.map(({ name }: { name: string }) => name).sort();
    assert.deepEqual(names, ["firecracker", "qemu"]);
    await good("GET", "/providers/{name}", { at: { name: "qemu" } });
    await good("POST", "/providers/test");
    for (const path of ["/environments/specs", "/environments/builds", "/environments/registry-connections"]) {
      assert.deepEqual((await good("GET", path, { query: "owner_id=alice" })).body, []);
      assert.equal((await ask("GET", path)).status, 400);
    }
    for (const path of ["/workers/{id}", "/admin/workers/{id}"]) {
      assert.equal((await good("GET", path, { at: { id: "local" } })).body.status, "online");
    }
    assert.equal((await ask("DELETE", "/admin/workers/{id}", { at: { id: "local" } })).status, 409);
    await good("GET", "/admin/providers/{name}", { at: { name: "qemu" } });
    await good("POST", "/admin/providers/test");
    await good("POST", "/images/pull", { json: { reference: SPAWN.image } });
    await good("POST", "/sandboxes/admission", { json: SPAWN });
    const ran = (await good("POST", "/run", { json: { ...SPAWN, command: "exit 5", collect: ["/etc/hostname"] } }))
      .body;
    assert.deepEqual([ran.exit_code, Object.keys(ran.files)], [5, ["/etc/hostname"]]);
    assert.deepEqual(Object.keys((await good("POST", "/sandboxes/admission", { json: SPAWN })).body).sort(), [
      "active_sandboxes",
      "allowed",
      "max_sandboxes",
      "max_ttl",
      "queueable",
    ]);

    const built = (await good("POST", "/snapshots", { json: SPAWN })).body;
    await good("GET", "/snapshots/{key}", { at: { key: built.key } });
    const spawned = await good("POST", "/sandboxes", {
      json: { ...SPAWN, env: { GIVEN: "value" } },
      headers: { "x-user-id": "alice" },
    });
    assert.equal(spawned.status, 201);
    assert.equal(spawned.body.owner_id, "alice");
    assert.match(spawned.headers.get("server-timing") ?? "", /total;dur=/);
    ({ id } = spawned.body);
    await good("GET", "/sandboxes/{id}");
    assert.equal((await good("GET", "/sandboxes/{id}/stats")).body.supported, true);
    await good("GET", "/sandboxes/{id}/logs", { query: "lines=5" });
    const allowed_hosts = ["*.example.com", "example.com:8080"];
    assert.deepEqual(
      (await good("PUT", "/sandboxes/{id}/network", { json: { allowed_hosts } })).body.allowed_hosts,
      allowed_hosts,
    );
    assert.deepEqual((await good("GET", "/sandboxes/{id}/network")).body.allowed_hosts, allowed_hosts);
    for (const wrong of [["https://example.com"], ["a b"], "example.com", [""], undefined])
      assert.equal((await ask("PUT", "/sandboxes/{id}/network", { json: { allowed_hosts: wrong } })).status, 400);
    const until = Date.parse(
      (await good("POST", "/sandboxes/{id}/extend", { json: { ttl: "1h30m" } })).body.expires_at,
    );
    assert.ok(Math.abs(until - Date.now() - 5_400_000) < 60_000);
    for (const ttl of ["5h", "soon", "-1s", "30"])
      assert.ok([400, 429].includes((await ask("POST", "/sandboxes/{id}/extend", { json: { ttl } })).status), ttl);

    assert.equal(
      (await good("POST", "/sandboxes/{id}/exec", { json: { command: "echo $GIVEN" } })).body.stdout,
      "value\n",
    );
    assert.equal((await ask("POST", "/sandboxes/{id}/exec", { json: { command: "x", mode: "other" } })).status, 400);
    assert.equal((await ask("POST", "/sandboxes/{id}/exec", { json: { command: "", mode: "argv" } })).status, 400);
    assert.equal((await ask("POST", "/sandboxes/{id}/exec", { json: { command: "true", timeout: "1h" } })).status, 429);
    assert.equal((await ask("POST", "/sandboxes/{id}/exec", { json: { command: "true", timeout: "1x" } })).status, 400);
    assert.ok((await good("GET", "/sandboxes/{id}/history")).body.length > 0);

    const files = "/sandboxes/{id}/files";
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i % 256);
    for (const path of [files, `${files}/raw`]) {
      await good("PUT", path, { query: "path=/workspace/raw", raw: bytes });
      const part = await good("GET", path, { query: "path=/workspace/raw", headers: { range: "bytes=65-67" } });
      assert.deepEqual([part.status, part.text, part.headers.get("content-range")], [206, "ABC", "bytes 65-67/1000"]);
      assert.equal(
        (await ask("GET", path, { query: "path=/workspace/raw", headers: { range: "bytes=5000-" } })).status,
        416,
      );
    }
    await good("POST", files, { json: { path: "/workspace/a", content: "YQ==", encoding: "base64" } });
    assert.equal((await good("GET", files, { query: "path=/workspace/a" })).text, "a");
    await good("POST", `${files}/copy`, { json: { old_path: "/workspace/a", new_path: "/workspace/b" } });
    await good("POST", `${files}/move`, { json: { old_path: "/workspace/b", new_path: "/workspace/c" } });
    await good("POST", `${files}/chmod`, { json: { path: "/workspace/c", mode: "0600" } });
    await good("POST", `${files}/mkdir`, { json: { path: "/workspace/d/e" } });
    assert.equal((await good("GET", `${files}/stat`, { query: "path=/workspace/c" })).body.mode, "600");
    assert.ok((await good("GET", `${files}/list`, { query: "path=/workspace" })).body.length >= 4);
    assert.deepEqual((await good("GET", `${files}/glob`, { query: "pattern=/workspace/c*" })).body, ["/workspace/c"]);
    const tar = await fetch(`${server.url}/api/v1/sandboxes/${id}/files/archive?path=/workspace`, { headers });
    const archive = new Uint8Array(await tar.arrayBuffer());
    await good("GET", `${files}/archive`, { query: "path=/workspace/d" });
    await good("PUT", `${files}/archive`, { query: "path=/workspace/copy", raw: archive });
    assert.ok((await good("GET", `${files}/list`, { query: "path=/workspace/copy" })).body.length > 0);
    await good("GET", `${files}/watch`, { query: "path=/workspace", firstOnly: true });
    await good("DELETE", files, { query: "path=/workspace/copy&recursive=true" });
    for (const query of ["", "path=", "path=/a%00b"])
      assert.equal((await ask("GET", files, { query })).status, 400, query);
    assert.equal((await ask("GET", files, { query: "path=/none" })).status, 404);

    const { id: process } = (
      await good("POST", "/sandboxes/{id}/processes", { json: { command: "cat; sleep 1000", stdin: true } })
    ).body;
    await good("GET", "/sandboxes/{id}/processes");
    await good("POST", "/sandboxes/{id}/processes/{process}/stdin", {
      at: { process },
      query: "eof=true",
      raw: "typed\n",
    });
    assert.match(
      (await good("GET", "/sandboxes/{id}/processes/{process}/output", { at: { process }, firstOnly: true })).text,
      /typed/,
    );
    await good("POST", "/sandboxes/{id}/processes/{process}/signal", { at: { process }, json: { signal: "KILL" } });
    await good("GET", "/sandboxes/{id}/processes/{process}", { at: { process } });

    const say = async (ws: WebSocket, first: unknown): Promise<string> => {
      let out = "";
      ws.on("message", (data) => (out += data));
      await once(ws, "open");
      ws.send(JSON.stringify(first));
      await once(ws, "close");
      return out;
    };
    assert.match(await say(socket("exec/ws"), { command: "echo over the socket" }), /over the socket.*"type":"done"/s);
    assert.match(
      await say(socket("terminal"), { type: "start", command: "tty; exit 3", rows: 30, cols: 90 }),
      /\/dev\/pts.*"exit_code":3/s,
    );
    await good("POST", "/sandboxes/{id}/exec", {
      json: { command: "mkdir -p /www; echo page >/www/index.html; httpd -p 8080 -h /www" },
    });
    await good("GET", "/sandboxes/{id}/ports/{port}/{path}", { at: { port: "8080", path: "index.html" } });
    for (const odd of ["101 X\\r\\nUpgrade: x\\r\\nConnection: upgrade", "099 X", "nonsense"]) {
      await good("POST", "/sandboxes/{id}/processes", {
        json: { command: `printf 'HTTP/1.1 ${odd}\\r\\n\\r\\n' | nc -l -p 8081` },
      });
      let answer = await ask("GET", "/sandboxes/{id}/ports/{port}/{path}", { at: { port: "8081", path: "x" } });
      while (/nothing listens/.test(answer.text)) {
        answer = await ask("GET", "/sandboxes/{id}/ports/{port}/{path}", { at: { port: "8081", path: "x" } });
      }
      assert.equal(answer.status, 503, `${odd}: ${answer.text}`);
    }
    const tunnel = socket("tunnel/8080");
    await once(tunnel, "open");
    tunnel.send(Buffer.from("GET /index.html HTTP/1.0\r\n\r\n"));
    let page = "";
    tunnel.on("message", (data) => (page += data));
    await once(tunnel, "close");
    assert.match(page, /page/);
    // A browser can name protocols only.
    const named = Buffer.from(KEYS.admin).toString("base64url");
    const fromBrowser = (key: string): WebSocket =>
      new WebSocket(`${server.url.replace("http", "ws")}/api/v1/sandboxes/${id}/exec/ws`, [
        "stacyvm",
        `stacyvm.key.${key}`,
      ]);
    const spoken = fromBrowser(named);
    assert.match(await say(spoken, { command: "echo from a browser" }), /from a browser/);
    assert.equal(spoken.protocol, "stacyvm");
    assert.match(String((await once(fromBrowser("d3Jvbmc"), "error"))[0]), /401/);

    // What the guest sees of a request: everything but the key, wherever that was.
    const script = `#!/bin/sh\nprintf 'HTTP/1.0 200 OK\\r\\n\\r\\n'; while read -r l && [ \${#l} -gt 1 ]; do echo "$l"; done\n`;
    await good("PUT", files, { query: "path=/answer&mode=0755", raw: script });
    await good("POST", "/sandboxes/{id}/exec", { json: { command: "nc -ll -p 8081 -e /answer >/dev/null 2>&1 &" } });
    const asked = async (given: Record<string, string>): Promise<string> => {
      for (;;) {
        const answer = await fetch(`${server.url}/api/v1/sandboxes/${id}/ports/8081/`, { headers: given });
        if (answer.status !== 503) return answer.text();
      }
    };
    const shown = await asked({ ...headers, authorization: "Bearer the guest's", "x-other": "kept" });
    assert.match(shown, /authorization: Bearer the guest's/i);
    assert.match(shown, /x-other: kept/i);
    for (const text of [shown, await asked({ authorization: `Bearer ${KEYS.admin}` })])
      assert.ok(text.startsWith("GET / ") && !text.includes(KEYS.admin), text);
    for (const path of ["exec/ws", "terminal", "tunnel/{port}"])
      contract.succeeded.add(`GET /api/v1/sandboxes/{id}/${path}`);

    assert.equal((await good("POST", "/sandboxes/{id}/pause")).body.state, "paused");
    assert.equal((await ask("POST", "/sandboxes/{id}/exec", { json: { command: "true" } })).body.code, "CONFLICT");
    assert.equal((await good("POST", "/sandboxes/{id}/resume")).body.state, "running");
    assert.equal((await good("POST", "/sandboxes/{id}/suspend")).body.state, "suspended");
    await good("POST", "/sandboxes/{id}/resume");
    const children = (await good("POST", "/sandboxes/{id}/fork", { json: { count: 1 } })).body.sandboxes;
    await good("DELETE", "/sandboxes/{id}", { at: { id: children[0].id } });
    const checkpoint = (await good("POST", "/sandboxes/{id}/checkpoints", { json: { name: "one" } })).body.id;
    await good("GET", "/sandboxes/{id}/checkpoints");
    await good("GET", "/checkpoints/{id}", { at: { id: checkpoint } });
    const restored = await good("POST", "/sandboxes/{id}/restore", { json: { checkpoint } });
    assert.equal(restored.body.state, "running");
    const back = (await good("POST", "/sandboxes", { json: { checkpoint } })).body.id;
    assert.equal((await good("GET", files, { at: { id: back }, query: "path=/workspace/a" })).text, "a");
    await good("DELETE", "/sandboxes/{id}", { at: { id: back } });
    await good("DELETE", "/checkpoints/{id}", { at: { id: checkpoint } });

    const template = {
      name: "built",
      ...SPAWN,
      setup: ["echo prepared >/prepared"],
      env: { FROM: "template" },
      vcpus: 1,
      ttl: "20m",
    };
    assert.equal((await good("POST", "/templates", { json: template })).body.ttl_seconds, 1200);
    assert.equal((await ask("POST", "/templates", { json: template })).status, 409);
    assert.equal((await ask("POST", "/templates", { json: { name: "x" } })).status, 400);
    await good("GET", "/templates/{name}", { at: { name: "built" } });
    await good("PUT", "/templates/{name}", { at: { name: "built" }, json: template });
    const fromTemplate = (await good("POST", "/templates/{name}/spawn", { at: { name: "built" } })).body;
    assert.deepEqual(fromTemplate.metadata, { template: "built" });
    const seen = await good("POST", "/sandboxes/{id}/exec", {
      at: { id: fromTemplate.id },
      json: { command: "cat /prepared; echo $FROM" },
    });
    assert.equal(seen.body.stdout, "prepared\ntemplate\n");
    await good("DELETE", "/sandboxes/{id}", { at: { id: fromTemplate.id } });
    await good("DELETE", "/templates/{name}", { at: { name: "built" } });

    const owner = { owner: "alice" };
    await good("PUT", "/quotas/{owner}", { at: owner, json: { max_sandboxes: 1, max_ttl: "1h" } });
    assert.deepEqual((await good("GET", "/quotas/{owner}/usage", { at: owner })).body, {
      owner_id: "alice",
      active_sandboxes: 1,
      max_sandboxes: 1,
      max_ttl: "1h0m0s",
      max_exec_timeout: "1m0s",
      quota_configured: true,
    });
    const refused = await ask("POST", "/sandboxes", { json: SPAWN, headers: { "x-user-id": "alice" } });
    assert.deepEqual([refused.status, refused.body.code], [429, "RESOURCE_LIMIT"]);
    await good("GET", "/quotas/{owner}", { at: owner });
    await good("DELETE", "/quotas/{owner}", { at: owner });
    await good("PUT", "/admin/quotas/{owner}", { at: owner, json: { max_sandboxes: 1 } });
    await good("GET", "/admin/quotas/{owner}", { at: owner });
    await good("GET", "/admin/quotas/{owner}/usage", { at: owner });
    await good("GET", "/admin/quotas/summary");
    await good("DELETE", "/admin/quotas/{owner}", { at: owner });
    for (const bad of ["a b", "a/b", "x".repeat(129)])
      assert.equal((await ask("POST", "/sandboxes", { json: SPAWN, headers: { "x-user-id": bad } })).status, 400, bad);

    assert.deepEqual((await good("GET", "/identity")).body.scopes, ["read", "use", "admin"]);
    const made = (await good("POST", "/keys", { json: { name: "contract", owner: "acme", expires_in: "1h" } })).body;
    assert.ok((await good("GET", "/keys", { query: "owner=acme" })).text.includes(made.id));
    const rotated = (await good("POST", "/keys/{key}/rotate", { at: { key: made.id }, json: {} })).body;
    assert.notEqual(rotated.key, made.key);
    assert.equal((await good("DELETE", "/keys/{key}", { at: { key: "contract" } })).body.state, "revoked");
    const byAcme = "about=acme&method=POST";
    const { body: audit } = await good("GET", "/audit", { query: byAcme });
    assert.deepEqual([audit[0].actor, audit[0].route, audit[0].status], ["admin_api_key", "/api/v1/keys", 201]);
    const { body: theirs } = await good("GET", "/admin/audit", { query: byAcme });
    assert.deepEqual([theirs[0].path, theirs[0].tenant_id], ["/api/v1/keys", "default"]);
    const csv = (await good("GET", "/admin/audit", { query: `${byAcme}&format=csv` })).text.split("\n");
    assert.match(csv[0] ?? "", /^id,created_at,actor,method,path,status/);
    assert.match(csv[1] ?? "", /,admin_api_key,POST,\/api\/v1\/keys,201,/);

    assert.deepEqual((await good("GET", "/nodes")).body, [], "this server is alone");
    for (const [method, path] of [
      ["GET", "/nodes/{node}"],
      ["POST", "/nodes/{node}/drain"],
      ["GET", "/nodes/{node}/drain"],
      ["POST", "/nodes/{node}/undrain"],
      ["DELETE", "/nodes/{node}"],
    ] as const)
      assert.equal((await ask(method, path, { at: { node: "none" } })).status, 404);
    assert.equal((await ask("POST", "/sandboxes/{id}/move", { at: { id: "sb-00000000" } })).status, 404);

    await good("POST", "/keys", { json: { name: "member", owner: "tenant-one", scopes: ["read"] } });
    const { tenants } = (await good("GET", "/admin/tenants")).body;
    assert.deepEqual(
      tenants.map(({ id }: { id: string }) => id),
      ["default", "tenant-one"],
    );
    const tenant = { id: "tenant-one" };
    assert.equal((await good("GET", "/admin/tenants/{id}", { at: tenant })).body.tenant.name, "tenant-one");
    const { members } = (await good("GET", "/admin/tenants/{id}/members", { at: tenant })).body;
    assert.deepEqual([members[0].user_id, members[0].role], ["member", "viewer"]);
    assert.deepEqual((await good("GET", "/admin/tenants/{id}/policies", { at: tenant })).body.policies, []);
    const about = (await good("GET", "/admin/tenants/{id}/audit", { at: tenant })).body;
    assert.equal(about.admin_audit[0].path, "/api/v1/keys");
    assert.equal((await ask("GET", "/admin/tenants/{id}", { at: { id: "none" } })).status, 404);
    const secret = { name: "API_KEY" };
    await good("PUT", "/secrets/{name}", {
      at: secret,
      json: { value: "a value of some length", hosts: ["api.example"] },
    });
    assert.ok(!(await good("GET", "/secrets/{name}", { at: secret })).text.includes("a value"));
    await good("DELETE", "/secrets/{name}", { at: secret });
    const another = (await good("POST", "/admin/tenants", { json: { name: "x" } })).body.tenant;
    assert.equal(another.name, "x");
    await good("DELETE", "/admin/tenants/{id}", { at: { id: another.id } });

    await good("POST", "/volumes", { json: { name: "kept", size_mb: 16 } });
    const kept = { at: { name: "kept" } };
    await good("PATCH", "/volumes/{name}", { ...kept, json: { size_mb: 20 } });
    const [usage] = (await good("GET", "/usage/volumes")).body;
    assert.deepEqual([usage.owner, usage.volumes, usage.size_mb, usage.max_volumes], ["default", 1, 20, 0]);
    assert.equal((await good("GET", "/volumes/{name}", kept)).body.size_mb, 20);
    const clone = await good("POST", "/volumes/{name}/clone", { ...kept, json: { name: "copy", read_only: true } });
    assert.deepEqual([clone.body.copied_from, clone.body.read_only], ["kept", true]);
    await good("GET", "/volumes/{name}/content", kept);
    const exported = await fetch(`${server.url}/api/v1/volumes/kept/content`, { headers });
    const raw = new Uint8Array(await exported.arrayBuffer());
    const imported = await good("PUT", "/volumes/{name}/content", { at: { name: "again" }, raw });
    assert.equal(imported.body.size_mb, 20);
    const volumes = (await good("GET", "/volumes")).body as { name: string }[];
    assert.deepEqual(
      volumes.map(({ name }) => name),
      ["again", "copy", "kept"],
    );
    const attaching = await ask("POST", "/sandboxes/{id}/volumes", {
      at: { id },
      json: { name: "kept", path: "/kept" },
    });
    assert.equal(attaching.status, 409);
    const absent = await ask("DELETE", "/sandboxes/{id}/volumes/{name}", { at: { id, name: "kept" } });
    assert.equal(absent.status, 404);
    const withSlot = (await good("POST", "/sandboxes", { json: { ...SPAWN, volume_slots: 1 } })).body;
    const own = { id: withSlot.id };
    const place = { name: "kept", path: "/kept" };
    const attached = (await good("POST", "/sandboxes/{id}/volumes", { at: own, json: place })).body;
    assert.deepEqual(attached.volumes, [{ ...place, read_only: false }]);
    const detaching = { at: { ...own, name: "kept" }, query: "force=true" };
    assert.equal((await good("DELETE", "/sandboxes/{id}/volumes/{name}", detaching)).body.volumes, undefined);
    await good("DELETE", "/sandboxes/{id}", { at: own });
    for (const { name } of volumes) await good("DELETE", "/volumes/{name}", { at: { name } });

    const replay = await good("GET", "/events", { firstOnly: true, headers: { "last-event-id": "evt-0" } });
    assert.ok(replay.text.includes("connected"));
    const events = await fetch(`${server.url}/api/v1/events?sandbox_id=${id}&last_event_id=evt-0`, { headers });
    let history = "";
    for await (const part of events.body ?? []) {
      history += new TextDecoder().decode(part);
      if (history.includes("sandbox.created") && history.includes("file.written")) break;
    }
    assert.match(history, /^id: evt-\d+$/m);

    const text = (await good("GET", "/metrics/prometheus")).text;
    for (const name of [
      "stacyvm_spawn_seconds",
      "stacyvm_spawn_phase_seconds",
      "stacyvm_exec_seconds",
      "stacyvm_agent_round_trip_seconds",
    ])
      assert.match(text, new RegExp(`^${name}_bucket\\{.*\\} [1-9]`, "m"));
    await good("DELETE", "/sandboxes/{id}");
    await good("DELETE", "/sandboxes");
    assert.equal((await ask("GET", "/sandboxes/{id}")).status, 404);
    await good("POST", "/snapshots/gc", { json: { dry_run: true } });
    await good("DELETE", "/snapshots/{key}", { at: { key: built.key } });
    assert.equal((await ask("DELETE", "/images", { query: "reference=none/such" })).status, 404);
    const tree = await mkdtemp(join(tmpdir(), "contract-tree-"));
    await writeFile(join(tree, "hello"), "from a directory");
    await good("POST", "/images/import", { json: { source: tree, reference: "contract/tree:1" } });
    await rm(tree, { recursive: true });
    const steps = tarOf([{ path: "stacyvm-image.yaml", content: `from: ${SPAWN.image}\nenv: {A: b}\n` }]);
    const derived = await good("POST", "/images/build", {
      query: "reference=contract/built:1&no_cache=true",
      raw: new Uint8Array(steps),
    });
    assert.ok(derived.body.config.env.includes("A=b"));
    await good("DELETE", "/images", { query: "reference=contract/built:1" });
    await good("POST", "/images/tag", { json: { reference: "contract/tree:1", name: "contract/tree:2" } });
    assert.match((await good("GET", "/images/inspect", { query: "reference=contract/tree:2" })).text, /contract\/tree/);
    await good("POST", "/images/gc", { json: { dry_run: true } });
    for (const tag of ["1", "2"]) await good("DELETE", "/images", { query: `reference=contract/tree:${tag}` });

    const open = contract.operations
      // Some of the published server's routes are here only to say why not: they have no success to see.
      .filter(({ responses }) => Object.keys(responses).some((status) => Number(status) < 400))
      .map(({ method, path }) => `${method} ${path}`)
      .filter((each) => !contract.succeeded.has(each) && !ELSEWHERE.some((routes) => routes.test(each)));
    assert.deepEqual(open, [], "routes that nothing here has seen succeed");
  });

  test("input that means harm gets the right status and hurts nobody", async () => {
    const post = (body: string | Uint8Array<ArrayBuffer>) =>
      fetch(`${server.url}/api/v1/sandboxes/admission`, { method: "POST", headers, body });
    assert.equal((await post("x".repeat(30_000))).status, 413);
    assert.equal((await post(Uint8Array.of(0x7b, 0xff, 0xfe, 0x7d))).status, 400);
    assert.ok([400, 500].includes((await post("[".repeat(15_000))).status));
    assert.equal((await post('{"__proto__":{"image":"x"},"constructor":1}')).status, 400);
    for (const bad of [
      "..%2f..%2fetc",
      "sb-0000000",
      "%2e%2e",
      "sb-00000000%00",
      "sb-00000000%0d%0aX: y",
      "a".repeat(5_000),
    ]) {
      for (const rest of ["", "/exec", "/files/list?path=/"]) {
        const response = await fetch(`${server.url}/api/v1/sandboxes/${bad}${rest}`, { headers });
        assert.ok([400, 404, 405].includes(response.status), `${bad}${rest}: ${response.status}`);
      }
    }
    // Byte by byte, as no client library would send it.
    const raw = (text: string, end = true): Promise<string> =>
      new Promise((resolve, reject) => {
        const { hostname, port } = new URL(server.url);
        let out = "";
        const client = connect(Number(port), hostname, () => (end ? client.end(text) : client.write(text)));
        client
          .on("data", (data) => (out += data))
          .on("close", () => resolve(out))
          .on("error", reject);
      });
    const request = (line: string, more = "") =>
      `${line} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${KEYS.admin}\r\nConnection: close\r\n${more}\r\n`;
    assert.match(await raw(request("GET /api/v1/health", "X-Request-ID: a\x01b\r\n")), /^HTTP\/1.1 (200|400)/);
    const injected = await raw(request("GET /api/v1/health", "X-Request-ID: bad id\r\n"));
    assert.ok(injected.startsWith("HTTP/1.1 200") && !injected.includes("bad id"), injected);
    assert.match(await raw(request("GET /api/v1/health", `X-Big: ${"x".repeat(20_000)}\r\n`)), /^HTTP\/1.1 431/);
    assert.match(await raw(request("GET /api/v1/../../../../etc/passwd")), /^HTTP\/1.1 (400|404)/);
    assert.match(
      await raw(request("POST /api/v1/sandboxes", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
      /^HTTP\/1.1 400/,
    );
    assert.match(
      await raw(request("POST /api/v1/sandboxes/admission", "Content-Length: 100\r\n\r\n{"), false),
      /^HTTP\/1.1 408/,
    );
    assert.match(await raw("GET /api/v1/health HTTP/1.1\r\nHost: loc", false), /^HTTP\/1.1 408/);
    assert.equal((await fetch(`${server.url}/api/v1/health`, { headers })).status, 200);
  });
});
