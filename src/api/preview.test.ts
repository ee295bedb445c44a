/** Previews against a real HTTP server that stands for a hostile program in the guest. */
import assert from "node:assert/strict";
import { once } from "node:events";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { after, before, beforeEach, test } from "node:test";
import { countTurns } from "../../test/count-turns.ts";
import type { PortRules } from "../sandboxes/record.ts";
import type { View } from "../sandboxes/view.ts";
import type { ApiContext } from "./endpoint.ts";
import { proxyPreview } from "./preview.ts";

let guest: Server;
let front: Server;
let seen: { method: string | undefined; url: string | undefined; headers: IncomingHttpHeaders; body: string }[] = [];
let freed = 0;
let answer: (response: ServerResponse) => void = (response) => response.end("hello");
let identity: { header: string } | undefined;

const RULES: Record<string, string | string[]> = {
  "set-cookie": ["a=1", "b=2; Domain=example.com"],
  "clear-site-data": '"*"',
  "strict-transport-security": "max-age=1000; includeSubDomains",
  "alt-svc": 'h3="evil.example:443"',
  nel: "{}",
  "report-to": "{}",
  "service-worker-allowed": "/",
  "access-control-allow-origin": "*",
  "access-control-allow-credentials": "true",
  "www-authenticate": 'Basic realm="log in"',
  "content-security-policy": "default-src *",
  "x-accel-redirect": "/internal/secret",
  "x-stacyvm-refused": "not-mine",
  "x-sendfile": "/etc/passwd",
};

const listening = async (server: Server): Promise<number> => {
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
};
let guestPort = 0;
let frontPort = 0;
/** A guest that says this once it is asked, at once and however it is read. */
let flood: Buffer[] | undefined;

function context(incoming: IncomingMessage, body: string, upgrade?: { socket: Duplex; head: Buffer }): ApiContext {
  const headers = new Headers();
  for (const [name, value] of Object.entries(incoming.headers)) headers.set(name, String(value));
  const { method = "GET" } = incoming;
  const raw = new Request("http://localhost/", { method, headers, ...(body === "" ? {} : { body }) });
  return {
    req: { raw, method, header: (name: string) => headers.get(name) ?? undefined },
    env: upgrade === undefined ? {} : { upgrade: { incoming, ...upgrade, taken: false } },
    get: () => identity,
  } as unknown as ApiContext;
}

/** Of the sandbox. */
let ports: PortRules = {};

const sandboxes = {
  lease: async () => ({
    sandbox: { record: { ports } },
    agent: {
      tunnel: async () => {
        if (flood !== undefined) return flooding(flood);
        const socket = connect(guestPort, "127.0.0.1");
        await once(socket, "connect");
        return socket;
      },
    },
    [Symbol.dispose]: () => freed++,
  }),
} as unknown as View;

function flooding(said: Buffer[]): Duplex {
  const left = [...said];
  const asked = Promise.withResolvers<void>();
  return new Duplex({
    read() {
      void asked.promise.then(() => this.push(left.shift() ?? null));
    },
    write(_piece, _encoding, done) {
      asked.resolve();
      done();
    },
  });
}

const target = (url: string | undefined) => ({
  id: "sb-00000000",
  port: 80,
  path: url ?? "/",
  sameOrigin: !(url ?? "").startsWith("/own"),
});

before(async () => {
  guest = createServer(async (incoming, response) => {
    const { method, url, headers } = incoming;
    seen.push({ method, url, headers, body: (await incoming.toArray()).join("") });
    answer(response);
  });
  guest.on("upgrade", (incoming, socket) => {
    seen.push({ method: "UPGRADE", url: incoming.url, headers: incoming.headers, body: "" });
    const rules = Object.entries(RULES).flatMap(([name, value]) =>
      [value].flat().map((each) => `${name}: ${each}\r\n`),
    );
    socket.write(
      `HTTP/1.1 101 Fine\r\nConnection: Upgrade\r\nUpgrade: x\r\nX-Kept: yes\r\n${rules.join("")}\r\nearly,`,
    );
    socket.on("data", (data) => socket.write(`echo ${data}`)).on("error", () => {});
  });
  guestPort = await listening(guest);
  front = createServer(async (incoming, response) => {
    const body = (await incoming.toArray()).join("");
    const preview = await proxyPreview(context(incoming, body), sandboxes, target(incoming.url));
    response.writeHead(preview.status, [...preview.headers].flat());
    response.end(Buffer.from(await preview.arrayBuffer()));
  });
  front.on("upgrade", (incoming, socket, head) => {
    void proxyPreview(context(incoming, "", { socket, head }), sandboxes, target(incoming.url));
  });
  frontPort = await listening(front);
});
after(() => {
  for (const server of [guest, front]) {
    server.closeAllConnections();
    server.close();
  }
});
beforeEach(() => {
  seen = [];
  ports = {};
  flood = undefined;
  freed = 0;
  identity = { header: "x-api-key" };
  answer = (response) => response.writeHead(200, { ...RULES, "x-kept": "yes" }).end("hello");
});

const CREDENTIALS = {
  cookie: "session=1",
  authorization: "Basic eA==",
  "x-api-key": "key",
  "x-user-id": "me",
  "x-other": "yes",
};

async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`http://127.0.0.1:${frontPort}${path}`, { headers: CREDENTIALS, ...init });
}

test("below our own host name: no cookie and no key goes in, and nothing that rules the origin comes out", async () => {
  const response = await ask("/x");
  assert.equal(await response.text(), "hello");
  for (const name of Object.keys(RULES)) {
    if (name !== "content-security-policy") assert.equal(response.headers.get(name), null, name);
  }
  assert.match(response.headers.get("content-security-policy") ?? "", /^sandbox /);
  assert.equal(response.headers.get("x-kept"), "yes");
  const headers = seen[0]?.headers ?? {};
  for (const name of ["cookie", "x-api-key", "x-user-id"]) assert.equal(headers[name], undefined, name);
  // Beside a key of its own a program means it for the guest; a browser would send it by itself.
  assert.equal(headers.authorization, "Basic eA==");
  identity = undefined;
  await (await ask("/y")).text();
  assert.equal(seen[1]?.headers.authorization, undefined);
  assert.equal(seen[1]?.headers["x-other"], "yes");
});

test("under a host name of its own: its cookies are its own, and only that", async () => {
  const response = await ask("/own");
  assert.deepEqual(response.headers.getSetCookie(), ["a=1"]);
  for (const name of ["x-accel-redirect", "x-sendfile", "x-stacyvm-refused"])
    assert.equal(response.headers.get(name), null, name);
  assert.equal(seen[0]?.headers.cookie, "session=1");
});

test("a program can be told another host name than the one that was asked for, with its port", async () => {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: what stands for the port
  ports = { host: "inside.example:${PORT}" };
  await (await ask("/x")).text();
  const { host, "x-forwarded-host": asked } = seen[0]?.headers ?? {};
  assert.deepEqual([host, asked], ["inside.example:80", `127.0.0.1:${frontPort}`]);
});

test("a WebSocket's answer is looked at like any other, then both sides speak for themselves", async () => {
  const outgoing = request({
    port: frontPort,
    path: "/ws",
    headers: { ...CREDENTIALS, connection: "Upgrade", upgrade: "x" },
  });
  outgoing.end();
  const [response, socket, early] = (await once(outgoing, "upgrade")) as [IncomingMessage, Duplex, Buffer];
  for (const name of Object.keys(RULES)) {
    if (name !== "content-security-policy") assert.equal(response.headers[name], undefined, name);
  }
  assert.equal(response.headers["x-kept"], "yes");
  assert.equal(seen[0]?.headers.cookie, undefined);
  assert.equal(seen[0]?.headers["x-api-key"], undefined);
  let text = String(early);
  socket.on("data", (data) => {
    text += data;
  });
  socket.write("hi");
  while (text !== "early,echo hi") await once(socket, "data");
  (socket as Socket).resetAndDestroy();
  while (freed === 0) await new Promise((resolve) => setImmediate(resolve));
});

test("an answer that is no upgrade is an answer", async () => {
  const refusing = (_incoming: IncomingMessage, socket: Duplex): void => {
    socket.end("HTTP/1.1 403 No\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\n\r\nno");
  };
  const usual = guest.listeners("upgrade")[0] as typeof refusing;
  guest.off("upgrade", usual).on("upgrade", refusing);
  try {
    const outgoing = request({ port: frontPort, path: "/ws", headers: { connection: "Upgrade", upgrade: "x" } });
    outgoing.end();
    const [response] = (await once(outgoing, "response")) as [IncomingMessage];
    assert.equal(response.statusCode, 403);
    assert.equal(response.headers["set-cookie"], undefined);
    assert.equal((await response.toArray()).join(""), "no");
  } finally {
    guest.off("upgrade", refusing).on("upgrade", usual);
  }
});

for (const status of [204, 205, 304]) {
  test(`an answer with ${status} has no body, also when the guest sends one`, async () => {
    answer = (response) => {
      response.socket?.end(`HTTP/1.1 ${status} Fine\r\nContent-Length: 4\r\nX-Kept: yes\r\n\r\nbody`);
    };
    const response = await ask("/x", { method: "POST" });
    assert.deepEqual([response.status, response.headers.get("x-kept"), await response.text()], [status, "yes", ""]);
  });
}

test("the body of a DELETE is its body, and not the next request", async () => {
  const inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
  await (await ask("/d", { method: "DELETE", body: inner })).text();
  const outgoing = request({
    port: frontPort,
    path: "/e",
    method: "DELETE",
    headers: { connection: "content-length", "content-length": inner.length },
  });
  outgoing.end(inner);
  const [response] = (await once(outgoing, "response")) as [IncomingMessage];
  response.resume();
  assert.deepEqual(
    seen.map(({ url, body }) => [url, body]),
    [
      ["/d", inner],
      ["/e", inner],
    ],
  );
});

test("an answer in chunks of a byte is passed on in a few pieces, and others have their turn meanwhile", async () => {
  const chunks = Buffer.from("1\r\na\r\n".repeat(10_000));
  const head = Buffer.from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  flood = [head, ...Array<Buffer>(40).fill(chunks), Buffer.from("0\r\n\r\n")];
  const end = countTurns();
  const preview = await proxyPreview(context({ headers: {} } as IncomingMessage, ""), sandboxes, target("/"));
  let [bytes, pieces] = [0, 0];
  for await (const piece of preview.body ?? []) {
    bytes += piece.length;
    pieces += 1;
  }
  const turns = end();
  assert.equal(bytes, 400_000);
  assert.ok(pieces < 4_000, `${pieces} pieces`);
  assert.ok(turns > 40, `${turns} turns`);
});

test("interim answers without an end are none", async () => {
  flood = Array<Buffer>(40).fill(Buffer.from("HTTP/1.1 103 Wait\r\n\r\n".repeat(3_000)));
  const asked = proxyPreview(context({ headers: {} } as IncomingMessage, ""), sandboxes, target("/"));
  await assert.rejects(asked, (error: Error) => /interim/.test((error.cause as Error).message));
  assert.equal(freed, 1);
});
