import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer, type IncomingMessage } from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { type Duplex, duplexPair } from "node:stream";
import { after, before, test } from "node:test";
import { countTurns } from "../../test/count-turns.ts";
import { Addresses } from "../host/addresses.ts";
import { StacyError } from "../host/error.ts";
import { isGuests } from "../host/guest-sockets.ts";
import { Egress, type EgressOptions, PROXY_PORT, type Refused } from "./egress.ts";
import { HostRules } from "./host-rules.ts";
import { resolverOf } from "./resolver.ts";

/** These tests are of the proxy; transparent.test.ts has the other ways out. */
const never = ({ signal }: { signal: AbortSignal }): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

/** The guest's side: connections that it opens are handed over as its agent would do it. */
class Guest implements Disposable {
  readonly egress: Egress;
  readonly refused: Refused[] = [];
  readonly #waiting: ((connection: Duplex) => void)[] = [];
  readonly #backlog: Duplex[] = [];
  readonly #ends: Duplex[] = [];

  /** What the next calls to wait for a connection fail with. */
  readonly failures: StacyError[];

  constructor(
    rules: string[],
    options: Partial<Pick<EgressOptions, "maxConnections" | "idleMs" | "shared">> & {
      opened?: string[];
      failures?: StacyError[];
    } = {},
  ) {
    this.failures = options.failures ?? [];
    this.egress = new Egress({
      rules: new HostRules(rules),
      ceiling: new HostRules(["*:*"]),
      resolve: resolverOf({}),
      addresses: new Addresses(options.opened ?? ["127.0.0.1", "::1"]),
      maxConnections: options.maxConnections ?? 16,
      idleMs: options.idleMs ?? 60_000,
      ...(options.shared === undefined ? {} : { shared: options.shared }),
      guest: {
        accept: (port, { signal }) => {
          assert.equal(port, PROXY_PORT);
          const failure = this.failures.shift();
          if (failure !== undefined) return Promise.reject(failure);
          const waits = this.#backlog.shift();
          if (waits !== undefined) return Promise.resolve(waits);
          return new Promise((settle, reject) => {
            this.#waiting.push(settle);
            signal.addEventListener("abort", () => {
              const at = this.#waiting.indexOf(settle);
              if (at >= 0) this.#waiting.splice(at, 1);
              reject(signal.reason);
            });
          });
        },
        intercept: never,
        datagrams: never,
      },
      refused: (each) => this.refused.push(each),
    });
    this.egress.start();
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  connect(): Duplex {
    const [mine, theirs] = duplexPair();
    this.#ends.push(mine);
    const taker = this.#waiting.shift();
    if (taker === undefined) this.#backlog.push(theirs);
    else taker(theirs);
    return mine;
  }

  /** Sends `text` and collects what comes back until the end. */
  async ask(text: string): Promise<string> {
    const connection = this.connect();
    connection.write(text);
    return (await connection.toArray()).join("");
  }

  [Symbol.dispose](): void {
    this.egress.stop();
    for (const end of this.#ends) end.destroy();
  }
}

let echo: Server;
let web: ReturnType<typeof createHttpServer>;
let echoPort = 0;
let webPort = 0;
const requests: IncomingMessage[] = [];

before(async () => {
  // Answers what it got, in capitals, once its client has said all.
  echo = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    let all = "";
    socket.on("data", (chunk) => {
      all += chunk;
    });
    socket.on("end", () => socket.end(all.toUpperCase()));
    socket.on("error", () => {});
  });
  web = createHttpServer(async (request, response) => {
    requests.push(request);
    const body = (await request.toArray()).join("");
    response.writeHead(201, { "x-kept": "yes", connection: "x-dropped", "x-dropped": "no" });
    response.end(`${request.method} ${request.url} ${body}`);
  });
  for (const server of [echo, web]) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
  }
  echoPort = (echo.address() as AddressInfo).port;
  webPort = (web.address() as AddressInfo).port;
});
after(() => {
  echo.close();
  web.close();
});

/** What has come, at least one byte; nothing is lost between two calls. */
async function head(connection: Duplex): Promise<string> {
  for (;;) {
    const piece = connection.read() as Buffer | null;
    if (piece !== null) return piece.toString();
    await once(connection, "readable");
  }
}

test("CONNECT is a tunnel: both directions, each ended by itself", async () => {
  using guest = new Guest([`127.0.0.1:${echoPort}`]);
  const accepted = once(echo, "connection") as Promise<[Socket]>;
  const connection = guest.connect();
  connection.write(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\nHost: x\r\n\r\nearly `);
  assert.match(await head(connection), /^HTTP\/1\.1 200 /);
  assert.ok(isGuests((await accepted)[0]), "the kernel says that it is the server's own user");
  connection.end("late");
  assert.equal((await connection.toArray()).join(""), "EARLY LATE");
  const { sent, received, ...counts } = guest.egress.status;
  assert.deepEqual(counts, { open: 0, connected: 1, refused: 0, failed: 0 });
  assert.deepEqual({ sent, received }, { sent: 10, received: 10 });
});

test("what comes right behind CONNECT, however much, reaches the host whole and in order", async () => {
  using guest = new Guest([`127.0.0.1:${echoPort}`]);
  const data = Array.from({ length: 40_000 }, (_, at) => `word ${at}`).join(" ");
  const connection = guest.connect();
  connection.end(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\nHost: x\r\n\r\n${data}`);
  const answer = (await connection.toArray()).join("");
  assert.ok(answer.slice(answer.indexOf("\r\n\r\n") + 4) === data.toUpperCase());
  assert.equal(guest.egress.status.sent, data.length);
});

test("requests with a whole URL are passed on, one after another over one connection, without what is between us only", async () => {
  using guest = new Guest([`127.0.0.1:${webPort}`]);
  const url = `http://127.0.0.1:${webPort}/a?b=c`;
  const lines = `Host: wrong\r\nProxy-Authorization: secret\r\nX-Own: 1\r\n`;
  const connection = guest.connect();
  connection.write(`GET ${url} HTTP/1.1\r\n${lines}Connection: keep-alive, x-private\r\nX-Private: 1\r\n\r\n`);
  let answers = "";
  while (!answers.includes("GET /a?b=c ")) answers += await head(connection);
  connection.write(
    `POST ${url} HTTP/1.1\r\n${lines}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n`,
  );
  answers += (await connection.toArray()).join("");
  assert.equal(answers.match(/^HTTP\/1\.1 201 /gm)?.length, 2);
  assert.match(answers, /GET \/a\?b=c /);
  assert.match(answers, /POST \/a\?b=c body/);
  assert.match(answers, /x-kept: yes/i);
  assert.doesNotMatch(answers, /x-dropped/i);
  for (const { headers } of requests.splice(0)) {
    assert.equal(headers.host, `127.0.0.1:${webPort}`);
    assert.equal(headers["x-own"], "1");
    assert.equal(headers["proxy-authorization"], undefined);
    assert.equal(headers["x-private"], undefined);
  }
});

test("bodies in chunks of a byte, of a program and of a host, are taken in turns, and are whole", async () => {
  const chunks = "1\r\nz\r\n".repeat(50_000);
  const letters = (answer: string): number => answer.split("z").length - 1;
  const chatty = createServer((socket) => {
    socket.on("error", () => {}).resume();
    socket.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n${chunks}0\r\n\r\n`);
  });
  await once(chatty.listen(0, "127.0.0.1"), "listening");
  const { port } = chatty.address() as AddressInfo;
  using guest = new Guest([`127.0.0.1:${webPort}`, `127.0.0.1:${port}`]);
  const sent = countTurns();
  const posted = `POST http://127.0.0.1:${webPort}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n`;
  assert.equal(letters(await guest.ask(`${posted}${chunks}0\r\n\r\n`)), 50_000);
  const [turnsOut, received] = [sent(), countTurns()];
  const answer = await guest.ask(`GET http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  const turnsIn = received();
  assert.equal(letters(answer), 50_000);
  // 64 KiB of them would be one.
  assert.ok(turnsOut > 40 && turnsIn > 40, `${turnsOut} and ${turnsIn} turns`);
  chatty.close();
});

test("what a request's body is, stays its body: whatever its method, and whatever Connection says", async () => {
  using guest = new Guest(["127.0.0.1:*"]);
  const begun = requests.length;
  const inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
  for (const method of ["GET", "DELETE", "OPTIONS", "POST"]) {
    const first = `${method} http://127.0.0.1:${webPort}/body HTTP/1.1\r\nHost: x\r\n`;
    const chunked = `Transfer-Encoding: chunked\r\n\r\n${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n`;
    assert.match(await guest.ask(`${first}Connection: close\r\n${chunked}`), /^HTTP\/1.1 201/);
    const length = `Connection: close, content-length\r\nContent-Length: ${inner.length}\r\n\r\n${inner}`;
    assert.match(await guest.ask(first + length), /^HTTP\/1.1 201/);
  }
  assert.deepEqual([...new Set(requests.splice(begun).map(({ url }) => url))], ["/body"]);
});

test("a program that closes its side after the request gets its answer", async () => {
  using guest = new Guest(["127.0.0.1:*"]);
  const connection = guest.connect();
  connection.end(`GET http://127.0.0.1:${webPort}/half HTTP/1.1\r\nHost: x\r\n\r\n`);
  assert.match((await connection.toArray()).join(""), /^HTTP\/1.1 201/);
  requests.splice(0);
});

test("requests that are sent ahead do not get a connection to a host each", async () => {
  using guest = new Guest([`127.0.0.1:${webPort}`]);
  await guest.ask(`GET http://127.0.0.1:${webPort}/ HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(500)).catch(() => {});
  assert.ok(requests.splice(0).length <= 2);
  assert.ok(guest.egress.status.connected <= 2);
});

test("what the rules do not permit is answered with 403 and told, once", async () => {
  using guest = new Guest(["pkg.example"]);
  for (const request of ["CONNECT evil.example:443 HTTP/1.1\r\n\r\n", "CONNECT evil.example:443 HTTP/1.1\r\n\r\n"]) {
    assert.match(await guest.ask(request), /^HTTP\/1\.1 403 [\s\S]*not among the hosts[\s\S]*hint: allow it/);
  }
  assert.match(await guest.ask("CONNECT pkg.example:22 HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 403 /);
  assert.match(
    await guest.ask("GET http://evil.example/ HTTP/1.1\r\nHost: pkg.example\r\nConnection: close\r\n\r\n"),
    /^HTTP\/1\.1 403 /,
  );
  assert.deepEqual(
    guest.refused.map(({ host, port }) => `${host}:${port}`),
    ["evil.example:443", "pkg.example:22", "evil.example:80"],
  );
  assert.equal(guest.egress.status.refused, 4);
});

test("a permitted name that resolves to the host or a private network is refused", async () => {
  using guest = new Guest(["*:*"], { opened: [] });
  for (const host of [
    "localhost",
    "127.0.0.1",
    "127.1",
    "0x7f000001",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "10.0.0.1",
    "169.254.169.254",
  ]) {
    const answer = await guest.ask(`CONNECT ${host}:${echoPort} HTTP/1.1\r\n\r\n`);
    assert.match(answer, /^HTTP\/1\.1 (403 [\s\S]*no public address|502 [\s\S]*do not know)/, host);
  }
  assert.equal(guest.egress.status.connected, 0);
});

test("nonsense, other protocols, and hosts that do not answer: an error each, and the proxy goes on", async () => {
  using guest = new Guest(["*:*"]);
  const close = "Host: x\r\nConnection: close\r\n\r\n";
  assert.match(await guest.ask(`GET / HTTP/1.1\r\n${close}`), /^HTTP\/1\.1 400 [\s\S]*HTTP proxy/);
  assert.match(await guest.ask(`GET ftp://127.0.0.1/ HTTP/1.1\r\n${close}`), /^HTTP\/1\.1 400 [\s\S]*ftp:/);
  assert.match(await guest.ask("CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 400 /);
  assert.match(await guest.ask("CONNECT a@127.0.0.1:80 HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 400 /);
  assert.match(await guest.ask("CONNECT nowhere.invalid:80 HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 502 [\s\S]*do not know/);
  assert.match(await guest.ask("CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 502 [\s\S]*ECONNREFUSED/);
  await guest.ask("\x16\x03\x01 not HTTP at all\r\n\r\n").catch(() => {});
  await guest.ask(`GET http://127.0.0.1/ HTTP/1.1\r\nX: ${"x".repeat(100_000)}\r\n\r\n`).catch(() => {});
  assert.match(await guest.ask(`GET http://127.0.0.1:${webPort}/ HTTP/1.1\r\n${close}`), /^HTTP\/1\.1 201 /);
  requests.length = 0;
});

test("a host that answers what HTTP does not know harms its own connection only", async () => {
  for (const answer of [
    "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 000 \r\n\r\n",
    "HTTP/1.1 200 \x01\x7f\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: \x01\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "nonsense\r\n\r\n",
    "",
  ]) {
    const odd = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => socket.end(answer, "latin1"));
    });
    odd.listen(0, "127.0.0.1");
    await once(odd, "listening");
    const port = (odd.address() as AddressInfo).port;
    using guest = new Guest([`127.0.0.1:${port}`]);
    const got = await guest
      .ask(`GET http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
      .catch(String);
    assert.doesNotMatch(got, /^HTTP\/1\.1 (0|101)/, answer);
    odd.close();
  }
});

test("other rules count at once, also for what is open", async () => {
  using guest = new Guest([`127.0.0.1:${echoPort}`]);
  const connection = guest.connect();
  connection.write(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`);
  assert.match(await head(connection), / 200 /);
  const gone = once(connection, "end");
  connection.on("error", () => {});
  connection.resume();
  guest.egress.allow(new HostRules(["pkg.example"]));
  await gone;
  assert.match(await guest.ask(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`), / 403 /);
  // Also for what is on its way there.
  guest.egress.allow(new HostRules(["*:*"]));
  const late = guest.ask(`CONNECT localhost:${echoPort} HTTP/1.1\r\n\r\n`);
  await new Promise((wake) => setImmediate(wake));
  guest.egress.allow(new HostRules(["pkg.example"]));
  assert.match(await late, / 403 /);
  guest.egress.allow(new HostRules([]));
  assert.equal(guest.waiting, 0);
  guest.egress.allow(new HostRules(["*:*"]));
  const again = guest.connect();
  again.write(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`);
  assert.match(await head(again), / 200 /);
});

test("connections beyond the limit wait for one that ends", async () => {
  using guest = new Guest([`127.0.0.1:${echoPort}`], { maxConnections: 2 });
  const connect = `CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`;
  const first = Array.from({ length: 6 }, () => guest.connect());
  // Those that were waited for already are taken; after them nothing is, until one goes.
  await new Promise((wake) => setImmediate(wake));
  assert.equal(guest.waiting, 0);
  const late = guest.connect();
  late.write(connect);
  for (const each of first) each.resume().end();
  assert.match(await head(late), / 200 /);
});

test("all sandboxes together have a limit, and a connection over which nothing goes is closed", async () => {
  const shared = {
    counts: { connected: 0, refused: 0, failed: 0 },
    traffic: { sent: 0, received: 0 },
    open: 0,
    mostOpen: 1,
    pings: 0,
  };
  using guest = new Guest([`127.0.0.1:${echoPort}`], { shared, idleMs: 200 });
  using other = new Guest([`127.0.0.1:${echoPort}`], { shared });
  const connect = `CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`;
  const idle = guest.connect().on("error", () => {});
  idle.write(connect);
  assert.match(await head(idle), / 200 /);
  assert.match(await other.ask(connect), / 503 [\s\S]*max_connections_total/);
  await once(idle.resume(), "close");
  const late = other.connect();
  late.write(connect);
  assert.match(await head(late), / 200 /);
  assert.equal(shared.open, 1);
  const gone = once(late.resume(), "end");
  other.egress.stop();
  await gone;
  while (shared.open > 0) await new Promise((wake) => setImmediate(wake)); // what has ended holds no place
  assert.match(await guest.ask("CONNECT nowhere.invalid:80 HTTP/1.1\r\n\r\n"), / 403 /);
  assert.equal(shared.open, 0, "what was refused holds no place");
});

test("after a stop nothing is taken or open; a start goes on", async () => {
  using guest = new Guest([`127.0.0.1:${echoPort}`]);
  const connection = guest.connect();
  connection.write(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`);
  assert.match(await head(connection), / 200 /);
  connection.on("error", () => {});
  connection.resume();
  const gone = once(connection, "end");
  guest.egress.stop();
  await gone;
  assert.equal(guest.waiting, 0);
  assert.equal(guest.egress.status.open, 0);
  guest.egress.start();
  const again = guest.connect();
  again.write(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`);
  assert.match(await head(again), / 200 /);
});

test("a channel that broke is waited for again; a guest that cannot do it is left alone, and the status says why", async () => {
  const broken = Array.from({ length: 6 }, () => new StacyError("disconnected", "the channel broke"));
  using guest = new Guest([`127.0.0.1:${echoPort}`], { failures: broken });
  const connection = guest.connect();
  connection.write(`CONNECT 127.0.0.1:${echoPort} HTTP/1.1\r\n\r\n`);
  assert.match(await head(connection), / 200 /);
  assert.deepEqual(guest.failures, []);
  const unable = Array.from({ length: 4 }, () => new StacyError("not-supported", "this guest cannot do it"));
  using other = new Guest(["*:*"], { failures: unable });
  await new Promise((wake) => setImmediate(wake));
  assert.equal(other.waiting, 0);
  assert.equal(other.egress.status.problem, "this guest cannot do it");
});
