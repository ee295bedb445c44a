/**
 * Three servers on one PostgreSQL, with real machines on one of them: every kind of call through another one, what is said while that one
 * is gone, and that all is there again when it is back.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { WebSocket } from "ws";
import { Postgres } from "./postgres.ts";
import { Server } from "./server-support.ts";

const KEY = "key-of-all-nodes-and-long-enough-for-it";
const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };

describe("a fleet of three servers", () => {
  let postgres: Postgres;
  /** Has the machine. */
  let there: Server;
  /** Could have it. */
  let here: Server;
  /** Could not. */
  let entrance: Server;
  let id: string;

  const config = (name: string, more = ""): string => `
auth: { api_key: ${KEY} }
providers: { default: qemu }
warm: { adaptive: false }
fleet:
  database_url: ${postgres.url}
  node_name: ${name}
  address: 127.0.0.1:0
  secret: ${"s".repeat(40)}
  heartbeat: 200ms
${more}`;

  before(async () => {
    postgres = await Postgres.create();
    [there, here, entrance] = await Promise.all([
      Server.create(config("there")),
      Server.create(config("here")),
      Server.create(config("entrance", "  role: entrance")),
    ]);
    // It needs no monitor.
    await entrance.stop("SIGTERM");
    await entrance.start({ PATH: "/nonexistent", STACYVM_FIRECRACKER: "/nonexistent/firecracker" });
  });
  after(async () => {
    await Promise.all([there, here, entrance].map((server) => server?.[Symbol.asyncDispose]()));
    await postgres?.[Symbol.asyncDispose]();
  });

  interface Said {
    status: number;
    // biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
    body: any;
    headers: IncomingMessage["headers"];
  }
  async function ask(server: Server, method: string, path: string, body?: unknown, headers = {}): Promise<Said> {
    const raw = Buffer.isBuffer(body) || body === undefined;
    const asked = request(path.startsWith("http") ? path : `${server.url}/api/v1${path}`, {
      method,
      agent: false,
      headers: { "x-api-key": KEY, ...(raw ? {} : { "content-type": "application/json" }), ...headers },
    });
    asked.end(raw ? body : JSON.stringify(body));
    const [answer] = (await once(asked, "response")) as [IncomingMessage];
    const said = await text(answer);
    let value: unknown = said;
    try {
      value = JSON.parse(said);
    } catch {}
    return { status: answer.statusCode ?? 0, body: value, headers: answer.headers };
  }
  // biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
  async function ok(server: Server, method: string, path: string, body?: unknown, headers = {}): Promise<any> {
    const answer = await ask(server, method, path, body, headers);
    assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }
  const open = (server: Server, path: string): WebSocket =>
    new WebSocket(`${server.url.replace("http", "ws")}/api/v1/sandboxes/${id}/${path}`, {
      headers: { "x-api-key": KEY },
    });
  const say = async (socket: WebSocket, first: object): Promise<string> => {
    let heard = "";
    socket.on("message", (data) => {
      heard += String(data);
    });
    socket.once("open", () => socket.send(JSON.stringify(first)));
    await once(socket, "close");
    return heard;
  };
  const listed = async (server: Server): Promise<string[]> =>
    (await ok(server, "GET", "/sandboxes")).map((one: { id: string }) => one.id);

  test("an entrance is ready when a node is, and has no monitor", async () => {
    const { status, ready_providers } = await ok(entrance, "GET", "/ready");
    assert.deepEqual([status, ready_providers], ["ready", 0]);
  });

  test("a create at an entrance is made by a node, and is everywhere by id and by name", async () => {
    const made = await ok(entrance, "POST", "/sandboxes", { ...SPAWN, name: "web" });
    id = made.id;
    const places = await Promise.all([there, here, entrance].map((server) => server.machines()));
    assert.deepEqual(places.flat(), [id], "one of the nodes has made it");
    if (places[1]?.length === 1) [there, here] = [here, there];
    for (const server of [there, here, entrance]) {
      assert.deepEqual(await listed(server), [id]);
      for (const name of [id, "web"]) assert.equal((await ok(server, "GET", `/sandboxes/${name}`)).id, id);
    }
    const taken = await ask(here, "POST", "/sandboxes", { ...SPAWN, name: "web" });
    assert.equal(taken.status, 409, "no two have one name");
    // What the entrance cannot do for want of machines it says.
    const ran = await ask(entrance, "POST", "/run", { ...SPAWN, command: "true" });
    assert.deepEqual([ran.status, /entrance/.test(ran.body.message)], [503, true]);
  });

  test("every kind of call goes through another node: commands, streams, files, terminals, tunnels, previews, E2B", async () => {
    const at = `/sandboxes/${id}`;
    for (const server of [here, entrance]) {
      const { stdout, exit_code } = await ok(server, "POST", `${at}/exec`, { command: "echo here; exit 3" });
      assert.deepEqual([stdout, exit_code], ["here\n", 3]);
      const run = await say(open(server, "exec/ws"), { command: "echo over the socket" });
      assert.match(run, /over the socket.*"type":"done"/s);
      const terminal = await say(open(server, "terminal"), {
        type: "start",
        command: "tty; exit 3",
        rows: 30,
        cols: 90,
      });
      assert.match(terminal, /\/dev\/pts.*"exit_code":3/s);
      // Files, larger than what is kept on the way.
      const content = randomBytes(3_000_000);
      await ok(server, "PUT", `${at}/files/raw?path=/tmp/large`, content);
      const back = await fetch(`${server.url}/api/v1${at}/files/raw?path=/tmp/large`, {
        headers: { "x-api-key": KEY },
      });
      assert.ok(Buffer.from(await back.arrayBuffer()).equals(content));
      const archive = await fetch(`${server.url}/api/v1${at}/files/archive?path=/tmp`, {
        headers: { "x-api-key": KEY },
      });
      assert.ok((await archive.arrayBuffer()).byteLength > content.length);
      const missing = await ask(server, "GET", `${at}/files/raw?path=/none`);
      assert.deepEqual([missing.status, missing.body.code], [404, "NOT_FOUND"]);
      for (const path of ["logs", "stats", "history", "processes", "network", "checkpoints"]) {
        await ok(server, "GET", `${at}/${path}`);
      }
      // What happens to files, as it happens.
      const watch = await fetch(`${server.url}/api/v1${at}/files/watch?path=/tmp`, { headers: { "x-api-key": KEY } });
      const reader = watch.body?.getReader();
      await ok(server, "POST", `${at}/exec`, { command: "echo x >/tmp/seen" });
      let events = "";
      while (!events.includes("/tmp/seen")) {
        const piece = await reader?.read();
        assert.equal(piece?.done, false, events);
        events += new TextDecoder().decode(piece?.value);
      }
      await reader?.cancel();
    }
    // A program that serves HTTP: by path and by host name.
    await ok(here, "POST", `${at}/processes`, {
      command: "mkdir -p /www && echo served >/www/index.html && httpd -f -p 8080 -h /www",
    });
    const path = `${at}/ports/8080/index.html`;
    while ((await ask(here, "GET", path)).status !== 200) await delay(50);
    for (const server of [here, entrance]) {
      assert.equal((await ok(server, "GET", path)).trim(), "served");
      const tunnel = open(server, "tunnel/8080");
      let page = "";
      tunnel.on("message", (data) => {
        page += String(data);
      });
      tunnel.once("open", () => tunnel.send(Buffer.from("GET /index.html HTTP/1.0\r\n\r\n")));
      await once(tunnel, "close");
      assert.match(page, /served/);
      const host = { host: `8080-${id}.localhost` };
      assert.equal((await ok(server, "GET", `${server.url}/index.html`, undefined, host)).trim(), "served");
      const connected = await ok(server, "POST", `${server.url}/sandboxes/${id}/connect`, { timeout: 600 });
      const envd = { host: `49983-${id}.localhost`, "x-access-token": connected.envdAccessToken, "x-api-key": "" };
      await ok(server, "GET", `${server.url}/health`, undefined, envd);
      const file = await ok(server, "GET", `${server.url}/files?path=/www/index.html`, undefined, envd);
      assert.equal(file.trim(), "served");
    }
    // A life's changes.
    assert.equal((await ok(here, "POST", `${at}/pause`)).state, "paused");
    assert.equal((await ok(entrance, "POST", `${at}/resume`)).state, "running");
  });

  test("what a node that is gone has is unreachable, and there again when it is back", async () => {
    await there.stop("SIGKILL");
    const at = `/sandboxes/${id}`;
    for (let state = ""; state !== "unreachable"; await delay(50)) {
      const { status, body } = await ask(here, "GET", at);
      assert.equal(status, 503, JSON.stringify(body));
      state = body.phase;
    }
    const silent = await ask(entrance, "POST", `${at}/exec`, { command: "true" });
    assert.deepEqual([silent.status, silent.body.phase], [503, "unreachable"]);
    assert.ok(Number(silent.headers["retry-after"]) > 0);
    const rows = await ok(here, "GET", "/sandboxes");
    assert.deepEqual(
      rows.map((row: { id: string; unreachable?: object }) => [row.id, row.unreachable !== undefined]),
      [[id, true]],
    );
    await there.start();
    while ((await ask(here, "GET", at)).status !== 200) await delay(50);
    assert.equal((await ok(entrance, "POST", `${at}/exec`, { command: "cat /www/index.html" })).stdout, "served\n");
  });

  test("while the database is away calls go on where they are known, and a create says when to ask again", async () => {
    await postgres.kill();
    const at = `/sandboxes/${id}`;
    for (const server of [there, here, entrance]) {
      assert.equal((await ok(server, "POST", `${at}/exec`, { command: "echo on" })).stdout, "on\n");
    }
    const refused = await ask(entrance, "POST", "/sandboxes", SPAWN);
    assert.equal(refused.status, 503, JSON.stringify(refused.body));
    assert.ok(Number(refused.headers["retry-after"]) > 0);
    await postgres.start();
    let made = await ask(entrance, "POST", "/sandboxes", SPAWN);
    for (; made.status === 503; made = await ask(entrance, "POST", "/sandboxes", SPAWN)) await delay(100);
    assert.equal(made.status, 201, JSON.stringify(made.body));
    for (const one of [id, made.body.id])
      assert.equal((await ok(here, "DELETE", `/sandboxes/${one}`)).status, "destroyed");
    assert.deepEqual(await listed(entrance), []);
    assert.equal((await ask(entrance, "GET", at)).status, 404);
  });
});
