/** What clients of the published StacyVM rely on, beyond the routes and shapes of the conformance table. */
import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, describe, test } from "node:test";
import { Server } from "./server-support.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };

describe("clients of the published server", () => {
  let server: Server;
  let id: string;

  before(async () => {
    server = await Server.create(
      "server: { preview_domain: 'boxes.example:8080' }\ndefaults: { workdir: /workspace }\n",
    );
    const spawned = await server.call("POST", "/sandboxes", { ...SPAWN, provider: "docker" });
    assert.equal(spawned.status, 201, JSON.stringify(spawned.body));
    ({ id } = spawned.body);
  });
  after(() => server[Symbol.asyncDispose]());

  const exec = async (body: object) => server.call("POST", `/sandboxes/${id}/exec`, body);
  const status = async (method: string, path: string, body?: unknown) => (await server.call(method, path, body)).status;

  test("their names of providers stand for the default one, whose own name the record has", async () => {
    const { body } = await server.call("GET", `/sandboxes/${id}`);
    assert.match(body.provider, /^(qemu|firecracker)$/);
    assert.equal(body.worker_id, "local");
    const provider = (await server.call("GET", "/providers/docker")).body;
    assert.equal(provider.name, body.provider);
    assert.equal(provider.config.type, body.provider);
    assert.equal(await status("GET", "/providers/other"), 404);
  });

  test("a command that cannot start is a wrong request, and its sandbox is not gone", async () => {
    for (const body of [
      { command: "no-such-program", mode: "argv" },
      { command: "true", workdir: "/no/such/directory" },
      { command: "true", user: "nobody-of-that-name" },
    ]) {
      for (const stream of [false, true]) {
        const answer = await exec({ ...body, stream });
        assert.equal(answer.status, 400, JSON.stringify(answer.body));
        assert.equal(answer.body.phase, "start");
      }
    }
    assert.equal((await exec({ command: "no-such-program" })).body.exit_code, 127);
    assert.equal((await exec({ command: "pwd" })).body.stdout, "/workspace\n");
    assert.equal((await exec({ command: "pwd", workdir: "/tmp" })).body.stdout, "/tmp\n");
  });

  test("files: moves make parents, deleting with all in it is no error twice, modes as letters", async () => {
    const files = `/sandboxes/${id}/files`;
    await server.call("POST", files, { path: "/workspace/a", content: "x" });
    const move = (old_path: string, new_path: string) => status("POST", `${files}/move`, { old_path, new_path });
    assert.equal(await move("/workspace/a", "/workspace/new/parents/b"), 200);
    assert.equal(await move("/workspace/none", "/workspace/other/b"), 404);
    assert.equal(await status("GET", `${files}/stat?path=/workspace/other`), 404);
    const chmod = (mode: string, more: object = {}) =>
      status("POST", `${files}/chmod`, { path: "/workspace/new/parents/b", mode, ...more });
    const stat = async () => (await server.call("GET", `${files}/stat?path=/workspace/new/parents/b`)).body;
    assert.equal(await chmod("+x"), 200);
    assert.equal((await stat()).mode, "755");
    assert.equal(await chmod("u=rw,go="), 200);
    assert.equal((await stat()).mode, "600");
    assert.equal(await chmod("+q"), 400);
    assert.equal(await chmod("+x", { recursive: true }), 400);
    assert.match((await stat()).mod_time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    const remove = (query: string) => status("DELETE", `${files}?path=/workspace/new${query}`);
    assert.equal(await remove(""), 409);
    assert.equal(await remove("&recursive=true"), 200);
    assert.equal(await remove("&recursive=true"), 200);
    assert.equal(await remove(""), 404);
  });

  test("a slash at the end changes nothing, a wrong method says which are right, a preflight lets their headers in", async () => {
    for (const path of ["/sandboxes/", `/sandboxes/${id}/`, `/sandboxes/${id}/files/list/?path=/`, "/health/"]) {
      assert.equal(await status("GET", path), 200, path);
    }
    for (const [method, path, allow] of [
      ["PUT", "/sandboxes", "POST, GET, HEAD, DELETE"],
      ["DELETE", "/health", "GET, HEAD"],
      ["PATCH", `/sandboxes/${id}/exec`, "POST"],
    ] as const) {
      const answer = await server.call(method, path);
      assert.deepEqual([answer.status, answer.body.code], [405, "METHOD_NOT_ALLOWED"], path);
      assert.equal(answer.headers.get("allow"), allow);
    }
    assert.equal(await status("GET", "/none"), 404);
    const preflight = await fetch(`${server.url}/api/v1/sandboxes`, {
      method: "OPTIONS",
      headers: { origin: server.url, "access-control-request-method": "POST" },
    });
    assert.match(preflight.headers.get("access-control-allow-headers") ?? "", /X-Tenant-ID/i);
  });

  test("what their pages ask below /admin", async () => {
    assert.equal(await status("POST", "/admin/providers/test"), 200);
    assert.equal((await server.call("GET", "/admin/providers/docker")).body.default, true);
    const quota = { max_sandboxes: 3, max_ttl: "1h", max_exec_timeout: "5m" };
    assert.equal((await server.call("PUT", "/admin/quotas/alice", quota)).body.max_ttl, "1h0m0s");
    assert.equal((await server.call("GET", "/admin/quotas/summary")).body.total, 1);
    assert.equal((await server.call("GET", "/admin/quotas/alice/usage")).body.quota_configured, true);
    assert.equal(await status("DELETE", "/admin/quotas/alice"), 200);
    for (const { latency_ms, last_checked } of (await server.call("GET", "/ready")).body.providers) {
      assert.ok(Number.isInteger(latency_ms));
      assert.match(last_checked, /:\d\dZ$/);
    }
  });

  test("templates of any readable name", async () => {
    for (const name of ["my template", "team@home", "group/one", "größer"]) {
      assert.equal(await status("POST", "/templates", { name, image: SPAWN.image }), 201, name);
      const path = `/templates/${encodeURIComponent(name)}`;
      assert.equal((await server.call("GET", path)).body.name, name);
      assert.equal(await status("DELETE", path), 200);
    }
    for (const name of ["", " ", "a ", " a", "a\nb", "a\u202eb", "x".repeat(129)]) {
      assert.equal(await status("POST", "/templates", { name, image: SPAWN.image }), 400, JSON.stringify(name));
    }
    for (const inject_at of ["PATH", "A=B"]) {
      const secrets = [{ name: "TOKEN", inject_at }];
      assert.equal(
        await status("POST", "/templates", { name: "with-secrets", image: SPAWN.image, secrets }),
        400,
        inject_at,
      );
    }
  });

  test("a preview domain with a port is found under any port", async () => {
    await exec({ command: "mkdir -p /www; echo page >/www/index.html; httpd -p 8080 -h /www" });
    const { preview_domain } = (await server.call("GET", `/sandboxes/${id}`)).body;
    assert.equal(preview_domain, "boxes.example:8080");
    for (const domain of [preview_domain, "boxes.example", "Boxes.Example:99"]) {
      const { port } = new URL(server.url);
      const text = await new Promise<string>((resolve, reject) => {
        const asked = request({ port, host: "127.0.0.1", headers: { host: `8080-${id}.${domain}` } }, async (answer) =>
          resolve((await answer.toArray()).join("")),
        );
        asked.on("error", reject).end();
      });
      assert.equal(text, "page\n", domain);
    }
  });
});
