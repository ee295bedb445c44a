/** The broker between a guest's client and a real TLS server, both real; only the guest's channel is a pair of streams. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, createServer as createHttp, request as httpRequest, type IncomingMessage } from "node:http";
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createSecureServer,
  type Http2SecureServer,
} from "node:http2";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, connect as connectTcp, createServer as createTcp, type Socket } from "node:net";
import { type Duplex, duplexPair } from "node:stream";
import { after, before, beforeEach, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { WebSocket, WebSocketServer } from "ws";
import { countTurns } from "../../../test/count-turns.ts";
import { StacyError } from "../../host/error.ts";
import type { Target } from "../connections.ts";
import { Meter, NO_LIMITS, type TrafficLimits } from "../meter.ts";
import { type Authority, certify, makeAuthority } from "./authority.ts";
import { Broker } from "./broker.ts";
import { type KeptSecret, type Placement, SecretHosts } from "./secret.ts";

const VALUE = "s3cr3t-value/+=of-the-host";
const PLACEHOLDER = "placeholder-0123456789abcdef";
const HOST = "api.example";
const LARGE = Buffer.alloc(1_000_000, "large ");
/** As whoever dials sets it. */
const IDLE_MS = 3_600_000;

interface Seen {
  method: string;
  url: string;
  headers: Record<string, string | string[] | undefined>;
  body: string;
  version: string;
}

let real: Http2SecureServer;
let world: Authority;
let seen: Seen[] = [];
let port = 0;
let respond: (request: IncomingMessage) => Record<string, string> = () => ({});
const sockets = new Set<Socket>();

before(async () => {
  world = await makeAuthority();
  const { cert, key } = await certify(world, HOST);
  real = createSecureServer({ cert, key, allowHTTP1: true });
  real.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  real.on("request", async (request, response) => {
    const body = (await request.toArray()).join("");
    seen.push({
      method: request.method,
      url: request.url,
      headers: request.headers,
      body,
      version: request.httpVersion,
    });
    if (request.url.startsWith("/stream")) {
      response.writeHead(200, {});
      for (const word of ["one ", "two ", "three"]) {
        response.write(word);
        await once(gate, "go");
      }
      response.end();
      return;
    }
    if (request.url === "/large") {
      response.writeHead(200, {});
      return void response.end(LARGE);
    }
    if (request.url === "/trailers") {
      response.writeHead(200, { trailer: "grpc-status" });
      response.write("message");
      response.addTrailers({ "grpc-status": "0" });
      response.end();
      return;
    }
    response.writeHead(200, { "x-asked": request.url, ...respond(request as never) });
    response.end(`${request.method} ${body}`);
  });
  const ws = new WebSocketServer({ noServer: true });
  real.on("upgrade", (request, socket, head) => {
    seen.push({ method: request.method, url: request.url, headers: request.headers, body: "", version: "1.1" });
    ws.handleUpgrade(request, socket, head, (client) => client.on("message", (text) => client.send(`got ${text}`)));
  });
  real.listen(0, "127.0.0.1");
  await once(real, "listening");
  port = (real.address() as AddressInfo).port;
});
after(() => {
  for (const socket of sockets) socket.destroy();
  real.close();
});
beforeEach(() => {
  seen = [];
  respond = () => ({});
});
const gate = new EventTarget();

interface Options {
  placement?: Placement;
  hosts?: string[];
  more?: KeptSecret[];
  trusted?: string[];
  refuse?: boolean;
  /** Of the real host. */
  port?: number;
  limits?: Partial<TrafficLimits>;
  idleMs?: number;
}

class Guest implements Disposable {
  readonly authority: Authority;
  readonly broker: Broker;
  readonly dialled: Target[] = [];
  readonly reached: Socket[] = [];
  readonly meter: Meter;
  value: string | undefined = VALUE;
  readonly #ends: Duplex[] = [];

  constructor(authority: Authority, options: Options = {}) {
    this.authority = authority;
    this.meter = new Meter({ ...NO_LIMITS, ...options.limits });
    this.broker = new Broker({
      idleMs: options.idleMs ?? 60_000,
      authority,
      trusted: options.trusted ?? [world.certificate],
      meter: this.meter,
      secrets: () => [
        {
          ...{ name: "KEY", placeholder: PLACEHOLDER, placement: options.placement ?? { kind: "bearer" } },
          read: async () => (this.value === undefined ? { missing: "it was lost" } : { value: this.value }),
          hosts: new SecretHosts(options.hosts ?? [HOST]),
        },
        ...(options.more ?? []),
      ],
      dial: async (target) => {
        this.dialled.push(target);
        if (options.refuse === true) throw new StacyError("permission", "the rules refuse it");
        const socket = connectTcp(options.port ?? port, "127.0.0.1");
        await once(socket, "connect");
        socket.setTimeout(IDLE_MS);
        this.reached.push(socket);
        return socket;
      },
    });
  }

  static async make(options?: Options): Promise<Guest> {
    return new Guest(await makeAuthority(), options);
  }

  /** A connection of a program of the guest, as its agent would hand it over. */
  raw(target: Target = { host: HOST, port: 443 }): Duplex {
    const [mine, theirs] = duplexPair();
    mine.on("error", () => {});
    theirs.once("close", () => mine.destroy());
    this.#ends.push(mine);
    const scheme = this.broker.scheme(target);
    assert.ok(scheme !== undefined, "the connection is not taken");
    void this.broker.serve(theirs, target, scheme);
    return mine;
  }

  async tls(protocols = ["http/1.1"], servername = HOST, target?: Target): Promise<Socket> {
    const socket = connectTls({
      socket: this.raw(target),
      servername,
      ca: [this.authority.certificate],
      ALPNProtocols: protocols,
    });
    this.#ends.push(socket);
    await once(socket, "secureConnect");
    return socket;
  }

  /** What comes back for exactly these bytes, until the end. */
  async bytes(text: string): Promise<string> {
    const socket = await this.tls();
    socket.on("error", () => {});
    socket.write(text);
    let all = "";
    socket.on("data", (data) => {
      all += data;
    });
    await once(socket, "close");
    return all;
  }

  async ask(
    path: string,
    headers: Record<string, string> = {},
    body?: string,
  ): Promise<{ answer: IncomingMessage; text: string }> {
    const socket = await this.tls();
    const outgoing = httpRequest({
      ...{ createConnection: () => socket, path, method: body === undefined ? "GET" : "POST" },
      headers: { host: HOST, ...headers },
    });
    outgoing.end(body);
    const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
    return { answer, text: (await answer.toArray()).join("") };
  }

  async http2(): Promise<ClientHttp2Session> {
    const socket = await this.tls(["h2"]);
    const session = connectHttp2(`https://${HOST}`, { createConnection: () => socket });
    session.on("error", () => {});
    return session;
  }

  [Symbol.dispose](): void {
    this.broker.close();
    for (const end of this.#ends) end.destroy();
  }
}

async function over(session: ClientHttp2Session, headers: Record<string, string>, body?: string) {
  const stream = session.request({ ":path": "/", ":authority": HOST, ...headers }, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  const told: Record<string, string> = {};
  stream.on("response", (head) => Object.assign(told, head));
  stream.on("trailers", (last) => Object.assign(told, last));
  const text = (await stream.toArray()).join("");
  return { status: Number(told[":status"]), headers: told, text };
}

test("the placeholder becomes the value, and an empty place gets it, on the way to the host alone", async () => {
  using guest = await Guest.make();
  for (const headers of [{}, { authorization: `Bearer ${PLACEHOLDER}` }, { authorization: `token ${PLACEHOLDER}` }]) {
    const { answer, text } = await guest.ask("/a?b=c", headers as never);
    assert.deepEqual([answer.statusCode, text, answer.headers["x-asked"]], [200, "GET ", "/a?b=c"]);
  }
  assert.deepEqual(
    seen.map(({ headers }) => headers.authorization),
    [`Bearer ${VALUE}`, `Bearer ${VALUE}`, `token ${VALUE}`],
  );
  assert.ok(seen.every(({ headers }) => headers.host === HOST));
  await guest.ask("/own", { authorization: "Bearer of-its-own" });
  assert.equal(seen.at(-1)?.headers.authorization, "Bearer of-its-own");
});

test("a header with a template, basic authentication, a parameter of the URL: each where it belongs", async () => {
  {
    using guest = await Guest.make({ placement: { kind: "header", name: "X-Api-Key", template: "key={}" } });
    await guest.ask("/", {});
    assert.equal(seen.at(-1)?.headers["x-api-key"], `key=${VALUE}`);
    assert.equal(seen.at(-1)?.headers.authorization, undefined);
  }
  const basic = (user: string, password: string): string =>
    `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  {
    using guest = await Guest.make({ placement: { kind: "basic", username: "robot" } });
    await guest.ask("/", {});
    assert.equal(seen.at(-1)?.headers.authorization, basic("robot", VALUE));
    await guest.ask("/", { authorization: basic("me", PLACEHOLDER) });
    assert.equal(seen.at(-1)?.headers.authorization, basic("me", VALUE));
  }
  using guest = await Guest.make({ placement: { kind: "query", name: "key" } });
  const placed = encodeURIComponent(VALUE);
  for (const [asked, sent] of [
    ["/a", `/a?key=${placed}`],
    ["/a?x=%2F&y", `/a?x=%2F&y&key=${placed}`],
    [`/a?key=${PLACEHOLDER}&x=1`, `/a?key=${placed}&x=1`],
    ["/a?key=mine", "/a?key=mine"],
    [`/a?other=${PLACEHOLDER}&key=mine`, `/a?other=${PLACEHOLDER}&key=mine`],
  ] as const) {
    await guest.ask(asked);
    assert.equal(seen.at(-1)?.url, sent);
  }
});

test("a body, a long one, and a streamed answer go through as they come", async () => {
  using guest = await Guest.make();
  const body = "x".repeat(300_000);
  assert.equal((await guest.ask("/", {}, body)).text, `POST ${body}`);
  assert.ok(guest.meter.traffic.sent >= body.length && guest.meter.traffic.received >= body.length);
  const socket = await guest.tls();
  socket.write(`GET /stream HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`);
  for (const word of ["one ", "two ", "three"]) {
    let got = "";
    while (!got.includes(word)) got += (await once(socket, "data"))[0];
    gate.dispatchEvent(new Event("go"));
  }
});

test("HTTP/2 end to end, with a body, many at once, and trailers", async () => {
  using guest = await Guest.make();
  const session = await guest.http2();
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) => over(session, { ":path": `/${i}`, ":method": "POST" }, `body ${i}`)),
  );
  assert.deepEqual(
    answers.map(({ text }) => text),
    answers.map((_, i) => `POST body ${i}`),
  );
  const last = await over(session, { ":path": "/trailers", ":method": "POST", te: "trailers" }, "x");
  assert.deepEqual([last.text, last.headers["grpc-status"]], ["message", "0"]);
  assert.ok(seen.every(({ version, headers }) => version === "2.0" && headers.authorization === `Bearer ${VALUE}`));
  assert.equal(guest.dialled.length, 1, "one connection for all");
  session.close();
});

test("HTTP/2 to us and HTTP/1.1 to the host, where it speaks no other", async () => {
  const { cert, key } = await certify(world, HOST);
  const old = (await import("node:https")).createServer({ cert, key }, async (request, response) => {
    const body = (await request.toArray()).join("");
    response.end(`${request.httpVersion} ${request.headers.authorization} ${body}`);
  });
  old.listen(0, "127.0.0.1");
  await once(old, "listening");
  const before = port;
  port = (old.address() as AddressInfo).port;
  try {
    using guest = await Guest.make();
    const session = await guest.http2();
    const answer = await over(session, { ":method": "POST" }, "hello");
    assert.equal(answer.text, `1.1 Bearer ${VALUE} hello`);
    session.close();
  } finally {
    port = before;
    old.closeAllConnections();
    old.close();
  }
});

test("a WebSocket: the secret is in its request, then both sides speak for themselves", async () => {
  using guest = await Guest.make();
  const socket = await guest.tls();
  const ws = new WebSocket(`ws://${HOST}/socket`, { createConnection: () => socket as never });
  await once(ws, "open");
  ws.send("hello");
  assert.equal(String((await once(ws, "message"))[0]), "got hello");
  assert.equal(seen.at(-1)?.headers.authorization, `Bearer ${VALUE}`);
  ws.terminate();
});

test("an echo in the answer's headers is masked, in every form in which it was sent", async () => {
  respond = ({ headers, url }) => ({
    "x-echo": `it was ${headers.authorization}`,
    "x-value": VALUE,
    location: `https://elsewhere.example/?key=${encodeURIComponent(VALUE)}`,
    "alt-svc": 'h3=":443"',
    "x-url": url ?? "",
  });
  for (const placement of [
    { kind: "bearer" },
    { kind: "basic", username: "me" },
    { kind: "query", name: "k" },
  ] as const) {
    using guest = await Guest.make({ placement });
    const { answer } = await guest.ask("/");
    const told = JSON.stringify(answer.rawHeaders);
    assert.match(told, new RegExp(PLACEHOLDER));
    for (const form of [
      VALUE,
      encodeURIComponent(VALUE),
      Buffer.from(VALUE).toString("base64"),
      Buffer.from(`me:${VALUE}`).toString("base64"),
    ])
      assert.ok(!told.includes(form), told);
    assert.equal(answer.headers["alt-svc"], undefined);
    const session = await guest.http2();
    const { headers } = await over(session, {});
    assert.ok(!JSON.stringify(headers).includes(VALUE));
    session.close();
  }
});

test("what an earlier request had put in is masked in an answer to one that has a value of its own there", async () => {
  respond = () => ({ "x-last": `Bearer ${VALUE}` });
  using guest = await Guest.make();
  const { answer } = await guest.ask("/own", { authorization: "Bearer of-its-own" });
  assert.equal(seen.at(-1)?.headers.authorization, "Bearer of-its-own");
  assert.equal(answer.headers["x-last"], `Bearer ${PLACEHOLDER}`);
});

test("heads count in both directions, and over its bytes a sandbox gets no further by a connection that it has", async () => {
  respond = () => ({ "x-large": "a".repeat(4_000) });
  using guest = await Guest.make({ limits: { maxBytes: 20_000 } });
  const session = await guest.http2();
  const told: number[] = [];
  for (let i = 0; i < 10; i++)
    told.push((await over(session, { ":method": "GET", "x-own": "b".repeat(1_000) })).status);
  assert.deepEqual([told[0], told[2], told.at(-1)], [200, 200, 503]);
  const { sent, received } = guest.meter.traffic;
  assert.ok(sent > 3_000 && received > 12_000 && sent + received < 40_000, `${sent} sent, ${received} received`);
  assert.ok(seen.length < 6, `${seen.length} requests reached the host`);
  session.close();
});

test("of requests by HTTP/2 as many are under way at a host as by HTTP/1.1, over however many connections they came", async () => {
  using guest = await Guest.make();
  const sessions = await Promise.all(Array.from({ length: 3 }, () => guest.http2()));
  const streams = sessions.flatMap((session) =>
    Array.from({ length: 50 }, () => session.request({ ":path": "/stream", ":authority": HOST })),
  );
  for (const stream of streams) stream.on("error", () => {});
  while (seen.length < 64) await new Promise((wake) => setImmediate(wake));
  await new Promise((wake) => setTimeout(wake, 200));
  assert.equal(seen.length, 64);
  // Those that leave make room for as many.
  for (const stream of streams.slice(0, 50)) stream.close();
  while (seen.length < 100) await new Promise((wake) => setImmediate(wake));
  for (const session of sessions) session.destroy();
});

test("a connection over which nothing goes is closed after a while", async () => {
  using guest = await Guest.make({ idleMs: 300 });
  const socket = await guest.tls();
  socket.on("error", () => {});
  socket.resume();
  await once(socket, "close");
});

test("a large answer comes whole to a client that has its connection closed, and the connection goes", async () => {
  using guest = await Guest.make();
  for (const request of [
    "GET /large HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n",
    "GET /large HTTP/1.0\r\nHost: api.example\r\n\r\n",
  ]) {
    const socket = await guest.tls();
    const pieces: Buffer[] = [];
    socket.on("data", (piece: Buffer) => pieces.push(piece)).write(request);
    await once(socket, "close");
    const heard = Buffer.concat(pieces);
    const body = heard.subarray(heard.indexOf("\r\n\r\n") + 4);
    assert.ok(body.length >= LARGE.length, `${body.length} bytes came`);
    assert.ok(body.includes("large ".repeat(1_000)));
  }
});

test("a rotated value is used by the next request of a connection that is open; without a value there is an answer that says so", async () => {
  using guest = await Guest.make();
  const socket = await guest.tls();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  Object.assign(agent, { createConnection: () => socket });
  const ask = async (): Promise<number | undefined> => {
    const outgoing = httpRequest({ agent, path: "/", headers: { host: HOST } }).end();
    const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
    await answer.resume().toArray();
    return answer.statusCode;
  };
  await ask();
  guest.value = "another-value";
  await ask();
  assert.deepEqual(
    seen.map(({ headers }) => headers.authorization),
    [`Bearer ${VALUE}`, "Bearer another-value"],
  );
  guest.value = undefined;
  assert.equal(await ask(), 502);
  assert.equal(seen.length, 2, "nothing was asked without it");
  agent.destroy();
});

test("a host whose certificate is not its own, or of nobody who is trusted, gets nothing", async () => {
  for (const [trusted, host] of [
    [[], HOST],
    [[world.certificate], "other.example"],
  ] as const) {
    using guest = await Guest.make({ trusted: [...trusted], hosts: [host] });
    const socket = await guest.tls(["http/1.1"], host, { host, port: 443 });
    socket.end(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    const text = (await socket.toArray()).join("");
    assert.match(text, /^HTTP\/1\.1 502 [\s\S]*does not answer as it should/);
    assert.ok(!text.includes(VALUE));
  }
  assert.equal(seen.length, 0);
});

test("what the rules refuse is not dialled around", async () => {
  using guest = await Guest.make({ refuse: true });
  const { answer, text } = await guest.ask("/");
  assert.deepEqual([answer.statusCode, /the rules refuse it/.test(text)], [403, true]);
});

test("only the hosts of secrets, on their ports, are opened", async () => {
  using guest = await Guest.make({ hosts: [HOST, "*.wild.example", "lan.example:8443", "http://plain.example:8000"] });
  const scheme = (host: string, at: number) => guest.broker.scheme({ host, port: at });
  assert.equal(scheme("API.example.", 443), "https");
  assert.equal(scheme("a.b.wild.example", 443), "https");
  assert.equal(scheme("lan.example", 8443), "https");
  assert.equal(scheme("plain.example", 8000), "http");
  for (const [host, at] of [
    [HOST, 80],
    [HOST, 22],
    ["wild.example", 443],
    ["lan.example", 443],
    ["evil-api.example", 443],
    ["127.0.0.1", 443],
  ] as const)
    assert.equal(scheme(host, at), undefined, `${host}:${at}`);
});

test("another name in the TLS handshake than the one that was connected to ends it", async () => {
  using guest = await Guest.make({ hosts: [HOST, "other.example"] });
  await assert.rejects(guest.tls(["http/1.1"], "other.example"));
  await assert.rejects(guest.tls(["h2"], "elsewhere.example"));
  // Whoever takes any certificate gets no further.
  const careless = connectTls({ socket: guest.raw(), servername: "other.example", rejectUnauthorized: false });
  await assert.rejects(once(careless, "secureConnect"));
  assert.equal(guest.dialled.length, 0);
});

test("of a sandbox's secrets each host gets its own alone, whichever placeholder a request has in which place", async () => {
  using host = await rawHost();
  const other: KeptSecret = {
    ...{
      name: "OTHER",
      placeholder: "placeholder-of-the-other",
      placement: { kind: "header", name: "X-Key", template: "{}" },
    },
    hosts: new SecretHosts(["http://other.test"]),
    read: async () => ({ value: "value-of-the-other" }),
  };
  using guest = await Guest.make({ hosts: ["http://api.test"], more: [other], port: host.port });
  for (const name of ["api.test", "other.test"]) {
    const client = guest.raw({ host: name, port: 80 });
    const asked = `GET / HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n`;
    client.write(`${asked}Authorization: Bearer ${PLACEHOLDER}\r\nX-Key: ${other.placeholder}\r\n\r\n`);
    assert.match((await client.toArray()).join(""), /^HTTP\/1\.1 200 /);
    const empty = guest.raw({ host: name, port: 80 });
    empty.write(`${asked}\r\n`);
    assert.match((await empty.toArray()).join(""), /^HTTP\/1\.1 200 /);
  }
  const sent = (name: string): string =>
    host.got
      .join("")
      .split(/(?=GET )/)
      .filter((each) => each.includes(`host: ${name}`))
      .join("");
  assert.equal(sent("api.test").split(VALUE).length - 1, 2, sent("api.test"));
  assert.ok(!sent("api.test").includes("value-of-the-other"));
  assert.equal(sent("other.test").split("value-of-the-other").length - 1, 2, sent("other.test"));
  assert.ok(!sent("other.test").includes(VALUE));
});

for (const [what, text] of Object.entries({
  "another host": "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
  "another port": `GET / HTTP/1.1\r\nHost: ${HOST}:8443\r\n\r\n`,
  "no host": "GET / HTTP/1.1\r\n\r\n",
  "no host, old": "GET / HTTP/1.0\r\n\r\n",
  "two hosts": `GET / HTTP/1.1\r\nHost: ${HOST}\r\nHost: evil.example\r\n\r\n`,
  "two hosts, the other way": `GET / HTTP/1.1\r\nHost: evil.example\r\nHost: ${HOST}\r\n\r\n`,
  "a user in the host": `GET / HTTP/1.1\r\nHost: ${HOST}@evil.example\r\n\r\n`,
  "a host with a path": `GET / HTTP/1.1\r\nHost: ${HOST}/evil.example\r\n\r\n`,
  "a list of hosts": `GET / HTTP/1.1\r\nHost: ${HOST}, evil.example\r\n\r\n`,
  "a whole URL": "GET https://evil.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n",
  "a whole URL of its own": `GET https://${HOST}/ HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`,
  "a tunnel": `CONNECT evil.example:443 HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`,
  "a trace": `TRACE / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`,
  "another protocol": `GET / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n`,
  "two lengths": `POST / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nabcd`,
  "a length and pieces": `POST / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  "odd pieces": `POST / HTTP/1.1\r\nHost: ${HOST}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
  "a space before the colon": `GET / HTTP/1.1\r\nHost : ${HOST}\r\n\r\n`,
  "a folded header": `GET / HTTP/1.1\r\nHost: ${HOST}\r\nX: a\r\n evil: b\r\n\r\n`,
  "a bare line end": `GET / HTTP/1.1\nHost: ${HOST}\n\n`,
  "no HTTP at all": "SSH-2.0-OpenSSH_9.2\r\n",
})) {
  test(`HTTP/1.1 with ${what} reaches nobody and gets no secret`, async () => {
    using guest = await Guest.make();
    const end = setTimeout(() => guest[Symbol.dispose](), 2_000);
    const told = await guest.bytes(text);
    clearTimeout(end);
    assert.deepEqual(seen, []);
    assert.ok(!told.includes(VALUE) && !/^HTTP\/1\.1 (2|101)/.test(told), told);
  });
}

test("a request behind a request, and one in a body, stay what they are", async () => {
  using guest = await Guest.make();
  const inner = "GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n";
  const told = await guest.bytes(
    `GET /first HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${inner.length}\r\n\r\n${inner}` +
      `POST /second HTTP/1.1\r\nHost: ${HOST}\r\nTransfer-Encoding: chunked\r\n\r\n${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n` +
      `GET /third HTTP/1.1\r\nHost: evil.example\r\n\r\n`,
  );
  assert.deepEqual(
    seen.map(({ url, body }) => [url, body]),
    [
      ["/first", inner],
      ["/second", inner],
    ],
  );
  assert.match(told, /HTTP\/1\.1 403 /);
});

/** A host that shows what each of its connections gets, and answers each request as soon as its head is there. */
async function rawHost(
  answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
): Promise<{ port: number; got: string[]; [Symbol.dispose](): void }> {
  const got: string[] = [];
  const server = createTcp((socket) => {
    sockets.add(socket);
    const at = got.push("") - 1;
    socket.on("error", () => {});
    socket.on("data", (data) => {
      const heads = (text = ""): number => text.split("\r\n\r\n").length;
      const before = heads(got[at]);
      got[at] += data.toString("latin1");
      for (let more = heads(got[at]) - before; more > 0; more--) {
        socket.write(answer);
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, got, [Symbol.dispose]: () => void server.close() };
}

test("a request that is not sent whole has its connection to the host for itself: the next one is no part of its body", async () => {
  using host = await rawHost();
  using guest = await Guest.make({ hosts: [`http://${HOST}`], port: host.port });
  const client = guest.raw({ host: HOST, port: 80 });
  let said = "";
  client.on("data", (data) => {
    said += data;
  });
  const answer = async (): Promise<void> => {
    while (!said.endsWith("ok")) await once(client, "data");
    assert.match(said, /^HTTP\/1\.1 200 /);
    said = "";
  };
  // Answered before its body is there; what is missing of it comes after the answer, when nobody listens any more.
  client.write(`POST /early HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 400\r\n\r\nbody`);
  await answer();
  client.write(`${"x".repeat(396)}GET /next HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
  await answer();
  const [first = "", ...more] = host.got;
  assert.match(first, /^POST \/early /);
  const rest = first.slice(first.indexOf("\r\n\r\n") + 4);
  assert.ok(!rest.slice(0, 400).includes("GET /next"), `the body was ${JSON.stringify(rest)}`);
  assert.match([rest.slice(400), ...more].join(""), /^GET \/next /);
});

test("a WebSocket that is asked for with a body is refused: its length would reach the host, and its bytes would not", async () => {
  using host = await rawHost();
  for (const body of ["Content-Length: 300\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n12c\r\n"]) {
    using guest = await Guest.make({ hosts: [`http://${HOST}`], port: host.port });
    const client = guest.raw({ host: HOST, port: 80 });
    let told = "";
    client.on("data", (data) => {
      told += data;
    });
    const head = `GET /ws HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`;
    const ended = once(client, "end");
    client.write(`${head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5IG9mIDE2IGJ5dGVz\r\n${body}`);
    await ended;
    assert.match(told, /^HTTP\/1\.1 400 [\s\S]*no body/);
  }
  assert.deepEqual(host.got, []);
});

test("a WebSocket whose client has gone before the answer is given up, with its connection to the host", async () => {
  using host = await rawHost("");
  using guest = await Guest.make({ hosts: [`http://${HOST}`], port: host.port });
  const client = guest.raw({ host: HOST, port: 80 });
  const head = `GET /ws HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`;
  client.write(`${head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5IG9mIDE2IGJ5dGVz\r\n\r\n`);
  while (host.got.length === 0) await new Promise((wake) => setImmediate(wake));
  client.end();
  const [reached] = guest.reached;
  assert.ok(reached !== undefined);
  if (!reached.closed) await once(reached, "close");
});

test("an answer that cannot be passed on is given up, with its connection to the host", async () => {
  using host = await rawHost("HTTP/1.1 099 odd\r\nContent-Length: 400\r\n\r\nsome");
  using guest = await Guest.make({ hosts: [`http://${HOST}`], port: host.port });
  const client = guest.raw({ host: HOST, port: 80 });
  client.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
  const [told] = await once(client, "data");
  assert.match(String(told), /^HTTP\/1\.1 5\d\d /);
  const [reached] = guest.reached;
  assert.ok(reached !== undefined);
  if (!reached.closed) await once(reached, "close");
});

test("HTTP/2 whose body is not as long as it says never becomes more or less than one request of HTTP/1.1", async () => {
  const asked: string[] = [];
  const old = createHttps(await certify(world, HOST), (request, response) => {
    asked.push(request.url ?? "");
    request.resume();
    response.end(request.url);
  });
  old.on("connection", (socket: Socket) => void sockets.add(socket)).listen(0, "127.0.0.1");
  await once(old, "listening");
  for (const [length, body] of [
    ["4", `bodyGET /smuggled HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`],
    ["400", "body"],
    ["+4", "body"],
  ] as const) {
    using guest = await Guest.make({ port: (old.address() as AddressInfo).port });
    const session = await guest.http2();
    await over(session, { ":method": "POST", ":path": "/first", "content-length": length }, body).catch(() => {});
    session.destroy();
    const again = await guest.http2();
    assert.equal((await over(again, { ":path": "/next" })).text, "/next", length);
    again.destroy();
  }
  old.close();
  assert.deepEqual(
    [...new Set(asked)].filter((url) => url !== "/first"),
    ["/next"],
  );
});

test("too many requests ahead of their answers end the connection", async () => {
  using guest = await Guest.make();
  const end = setTimeout(() => guest[Symbol.dispose](), 5_000);
  await guest.bytes(`GET /stream HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`.repeat(50));
  clearTimeout(end);
  assert.ok(seen.length <= 9, `${seen.length} reached the host`);
});

test("headers that a client names in Connection cannot take the secret out or a length away", async () => {
  using guest = await Guest.make();
  const { text } = await guest.ask("/", { connection: "close, authorization, content-length" }, "body");
  assert.equal(text, "POST body");
  assert.equal(
    seen.at(-1)?.headers.authorization,
    undefined,
    "what is named for this connection alone goes no further",
  );
});

test("HTTP/2 with another authority, another host beside it, none, a trace or a tunnel reaches nobody", async () => {
  using guest = await Guest.make();
  const session = await guest.http2();
  for (const headers of [
    { ":authority": "evil.example" },
    { ":authority": HOST, host: "evil.example" },
    { ":authority": `${HOST}:8443` },
    { ":method": "TRACE" },
    { ":path": "https://evil.example/" },
  ] as Record<string, string>[]) {
    // Node itself ends streams that are wrong in themselves.
    const answer = await over(session, headers).catch(() => ({ status: 400, text: "" }));
    assert.ok(answer.status >= 400 && answer.status < 500, `${JSON.stringify(headers)}: ${answer.status}`);
    assert.ok(!answer.text.includes(VALUE));
  }
  const tunnel = session.request({ ":method": "CONNECT", ":authority": "evil.example:443" });
  tunnel.on("error", () => {});
  const [head] = await once(tunnel, "response").catch(() => [{ ":status": 400 }]);
  assert.ok(Number(head[":status"]) >= 400);
  assert.deepEqual(seen, []);
  session.destroy();
});

test("rules that change, and secrets that are taken away, cut what is open", async () => {
  using guest = await Guest.make();
  const socket = await guest.tls();
  socket.on("error", () => {});
  socket.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
  await once(socket, "data");
  const closed = once(socket, "close");
  guest.broker.cut(() => true);
  assert.ok(!socket.destroyed);
  guest.broker.cut(({ host }) => host !== HOST);
  await closed;
});

test("over a connection that is kept an answer may take its time, and one that breaks off is not asked for again", async () => {
  const asked: string[] = [];
  const plain = createHttp((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    if (request.url === "/whole") return void response.end("whole");
    if (request.method === "POST") return void request.socket.resetAndDestroy();
    response.write("part");
    gate.addEventListener("go", () => request.socket.resetAndDestroy(), { once: true });
  });
  plain.listen(0, "127.0.0.1");
  await once(plain, "listening");
  using guest = await Guest.make({ hosts: [`http://${HOST}`], port: (plain.address() as AddressInfo).port });
  const ask = async (line: string, until: string): Promise<void> => {
    const client = guest.raw({ host: HOST, port: 80 });
    client.write(`${line} HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
    let all = "";
    for await (const data of client) {
      all += data;
      if (all.includes(until)) return;
    }
    assert.fail(all);
  };
  await ask("GET /whole", "whole");
  await ask("GET /part", "part");
  assert.equal(guest.reached[0]?.timeout, IDLE_MS);
  const broken = once(guest.reached[0] as Socket, "close");
  gate.dispatchEvent(new Event("go"));
  await broken;
  await ask("GET /whole", "whole");
  await ask("POST /once", "502");
  assert.deepEqual(asked, ["GET /whole", "GET /part", "GET /whole", "POST /once"]);
  plain.close();
  plain.closeAllConnections();
});

test("an address that is refused now is connected to no longer", async () => {
  using guest = await Guest.make();
  const socket = await guest.tls();
  socket.on("error", () => {});
  socket.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
  await once(socket, "data");
  const closed = once(socket, "close");
  guest.broker.cut((_target, address) => address !== "127.0.0.1");
  await closed;
});

test("bodies in chunks of a byte, of a program with TLS and without and of a host, are taken in turns, and are whole", async () => {
  const count = 30_000;
  const chunks = `${"1\r\nz\r\n".repeat(count)}0\r\n\r\n`;
  const letters = (text: string): number => text.split("z").length - 1;
  const post = `POST / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`;
  const get = `GET /chunks HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`;
  const answer = `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n${chunks}`;
  const got: string[] = [];
  const chatty = createHttp(async (request, response) => {
    if (request.url === "/chunks") return void request.socket.write(answer);
    got.push((await request.toArray()).join(""));
    response.end();
  });
  await once(chatty.listen(0, "127.0.0.1"), "listening");
  const open = (): Promise<Guest> =>
    Guest.make({ hosts: [`http://${HOST}`], port: (chatty.address() as AddressInfo).port });
  const plain = (guest: Guest): Duplex => guest.raw({ host: HOST, port: 80 });
  for (const [what, make, connect, bytes, body] of [
    ["of a program, by TLS", Guest.make, (guest: Guest) => guest.tls(), post, () => seen.at(-1)?.body],
    ["of a program", open, plain, post, () => got.at(-1)],
    ["of a host", open, plain, get, (text: string) => text.slice(text.indexOf("\r\n\r\n"))],
  ] as const) {
    using guest = await make();
    const client = await connect(guest);
    let text = "";
    client.on("data", (data) => {
      text += data;
    });
    const turns = countTurns();
    client.write(bytes);
    while (letters(body(text) ?? "") < count) await new Promise(setImmediate);
    const taken = turns();
    // Without slices it would be six at most.
    assert.ok(taken > 30, `${what}: ${taken} turns`);
  }
  chatty.closeAllConnections();
  chatty.close();
});
