/** Both ways out of a sandbox put secrets in, and only where they should: the whole of `Egress`, to real servers. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttp, type IncomingMessage, type Server } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo } from "node:net";
import { type Duplex, duplexPair } from "node:stream";
import { after, before, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { Addresses } from "../../host/addresses.ts";
import { Egress } from "../egress.ts";
import { HostRules } from "../host-rules.ts";
import { resolverOf } from "../resolver.ts";
import type { Intercepted } from "../transparent.ts";
import { type Authority, certify, makeAuthority } from "./authority.ts";
import { type KeptSecret, SecretHosts } from "./secret.ts";

const VALUE = "value-of-the-secret";
const HOST = "api.test";
let world: Authority;
let authority: Authority;
let real: Server;
let plain: Server;
let port = 0;
let plainPort = 0;
const seen: (string | undefined)[] = [];

before(async () => {
  world = await makeAuthority();
  authority = await makeAuthority();
  const answer = (request: IncomingMessage, response: { end(text: string): void }): void => {
    seen.push(request.headers.authorization);
    response.end(`page ${request.url} of ${request.headers.host}`);
  };
  real = createHttps(await certify(world, HOST), answer);
  plain = createHttp(answer);
  for (const server of [real, plain]) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
  }
  port = (real.address() as AddressInfo).port;
  plainPort = (plain.address() as AddressInfo).port;
});
after(() => {
  for (const server of [real, plain]) {
    server.closeAllConnections();
    server.close();
  }
});

class Guest implements Disposable {
  readonly egress: Egress;
  readonly #proxies: ((connection: Duplex) => void)[] = [];
  readonly #others: ((intercepted: Intercepted) => void)[] = [];
  readonly #ends: Duplex[] = [];
  known = true;

  constructor(
    rules: string[] = [`${HOST}:${port}`, `${HOST}:${plainPort}`, `127.0.0.1:${port}`],
    {
      opened = ["127.0.0.1"],
      names = {},
      most = 128,
    }: { opened?: string[]; names?: Record<string, string>; most?: number } = {},
  ) {
    const secret: KeptSecret = {
      ...{ name: "KEY", placeholder: "placeholder-1", placement: { kind: "bearer" } },
      hosts: new SecretHosts([`${HOST}:${port}`, `http://${HOST}:${plainPort}`]),
      read: async () => ({ value: VALUE }),
    };
    this.egress = new Egress({
      rules: new HostRules(rules),
      ceiling: new HostRules(["*:*"]),
      resolve: resolverOf({ [HOST]: "127.0.0.1", "other.test": "127.0.0.1", ...names }),
      addresses: new Addresses(opened),
      maxConnections: most,
      idleMs: 60_000,
      guest: {
        accept: () => new Promise((settle) => this.#proxies.push(settle)),
        intercept: () => new Promise((settle) => this.#others.push(settle)),
        datagrams: () => new Promise(() => {}),
      },
      secrets: { authority, trusted: [world.certificate], list: () => (this.known ? [secret] : undefined) },
      refused: () => {},
    });
    this.egress.start();
    seen.length = 0;
  }

  #pair(): [Duplex, Duplex] {
    const [mine, theirs] = duplexPair();
    mine.on("error", () => {});
    theirs.once("close", () => theirs.writableFinished || mine.destroy());
    this.#ends.push(mine);
    return [mine, theirs];
  }

  proxy(): Duplex {
    const [mine, theirs] = this.#pair();
    const taker = this.#proxies.shift();
    assert.ok(taker);
    taker(theirs);
    return mine;
  }

  /** By an address that stands for the name, or as it is. */
  async connect(host: string, to = port): Promise<Duplex> {
    const address = /^[\d:f]/.test(host) ? host : await this.#address(host);
    const [mine, theirs] = this.#pair();
    this.#others.shift()?.({ connection: theirs, address, port: to });
    return mine;
  }

  /** Asked as a program does: by a connection to port 53. */
  async #address(name: string): Promise<string> {
    const { encode, decode } = await import("dns-packet");
    const question = encode({ type: "query", id: 1, questions: [{ name, type: "A" }] });
    const length = Buffer.alloc(2);
    length.writeUInt16BE(question.length);
    const client = await this.connect("203.0.113.53", 53);
    client.end(Buffer.concat([length, question]));
    const answer = Buffer.concat(await client.toArray());
    const [record] = decode(answer.subarray(2)).answers ?? [];
    assert.ok(record?.type === "A");
    return record.data;
  }

  [Symbol.dispose](): void {
    this.egress.stop();
    for (const end of this.#ends) end.destroy();
  }
}

async function page(connection: Duplex, ca: string, host = HOST): Promise<string> {
  const socket = connectTls({ socket: connection, servername: HOST, ca: [ca] });
  await once(socket, "secureConnect");
  socket.end(`GET /p HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: close\r\n\r\n`);
  return (await socket.toArray()).join("");
}

async function head(connection: Duplex): Promise<string> {
  const [data] = await once(connection, "data");
  connection.pause();
  return String(data);
}

test("a connection by the name that was asked for has the secret, and its TLS ends here", async () => {
  using guest = new Guest();
  assert.match(await page(await guest.connect(HOST), authority.certificate), /200 OK[\s\S]*page \/p of api\.test/);
  assert.deepEqual(seen, [`Bearer ${VALUE}`]);
  const { connected, sent, received } = guest.egress.status;
  assert.ok(connected === 1 && received > 0 && sent >= 0);
});

test("the same host by its address is another one: closed to us, without a secret", async () => {
  using guest = new Guest();
  assert.match(await page(await guest.connect("127.0.0.1"), world.certificate), /200 OK/);
  assert.deepEqual(seen, [undefined]);
});

test("a tunnel of the proxy has the secret, also when its TLS comes at once; what is not allowed is 403 before that", async () => {
  {
    using guest = new Guest();
    const tunnel = guest.proxy();
    tunnel.write(`CONNECT ${HOST}:${port} HTTP/1.1\r\n\r\n`);
    assert.match(await head(tunnel), /^HTTP\/1\.1 200 /);
    assert.match(await page(tunnel, authority.certificate), /200 OK/);
    assert.deepEqual(seen, [`Bearer ${VALUE}`]);
  }
  using guest = new Guest([`${HOST}:1`]);
  const tunnel = guest.proxy();
  tunnel.write(`CONNECT ${HOST}:${port} HTTP/1.1\r\n\r\n`);
  assert.match(await head(tunnel), /^HTTP\/1\.1 403 /);
});

test("a host that may have it without TLS gets it by the proxy and by a connection, and nobody else does", async () => {
  using guest = new Guest([`${HOST}:${plainPort}`, `other.test:${plainPort}`]);
  const ask = async (url: string, host: string): Promise<string> => {
    const client = guest.proxy();
    client.end(`GET ${url} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    return (await client.toArray()).join("");
  };
  assert.match(await ask(`http://${HOST}:${plainPort}/p`, "ignored"), /page \/p of api\.test/);
  const direct = await guest.connect(HOST, plainPort);
  direct.end(`GET /d HTTP/1.1\r\nHost: ${HOST}:${plainPort}\r\nConnection: close\r\n\r\n`);
  assert.match((await direct.toArray()).join(""), /page \/d of api\.test/);
  assert.deepEqual(seen.splice(0), [`Bearer ${VALUE}`, `Bearer ${VALUE}`]);
  assert.match(await ask(`http://other.test:${plainPort}/p`, `${HOST}:${plainPort}`), /page \/p of other\.test/);
  assert.deepEqual(seen, [undefined]);
});

test("while nobody knows what the secrets are, nothing of their sandbox is connected", async () => {
  using guest = new Guest();
  guest.known = false;
  const client = await guest.connect("127.0.0.1");
  await once(client, "close");
  const tunnel = guest.proxy();
  tunnel.write(`CONNECT ${HOST}:${port} HTTP/1.1\r\n\r\n`);
  assert.match(await head(tunnel), /^HTTP\/1\.1 502 [\s\S]*not known yet/);
});

test("rules that change cut a connection to a secret's host, and so does stopping", async () => {
  using guest = new Guest();
  for (const end of [() => guest.egress.allow(new HostRules([`${HOST}:1`])), () => guest.egress.stop()]) {
    guest.egress.allow(new HostRules([`${HOST}:${port}`]));
    const socket = connectTls({ socket: await guest.connect(HOST), servername: HOST, ca: [authority.certificate] });
    socket.on("error", () => {});
    await once(socket, "secureConnect");
    const closed = once(socket, "close");
    end();
    await closed;
  }
});

test("addresses that are not public are refused to both ways, in whatever clothes and by whatever name, with every rule given", async () => {
  using guest = new Guest(["*:*"], {
    opened: [],
    names: { "inside.test": "10.0.0.5", "meta.test": "169.254.169.254" },
  });
  const tricks = [
    ...["127.0.0.1", "0.0.0.0", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "198.18.9.9", "224.0.0.1"],
    ...["::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::a00:1", "fd00::1", "fe80::1", "2002:7f00:1::"],
  ];
  for (const address of tricks) await once(await guest.connect(address, port), "close");
  for (const name of ["inside.test", "meta.test", "other.test"]) await once(await guest.connect(name, port), "close");
  const written = [
    ...tricks.map((address) => (address.includes(":") ? `[${address}]` : address)),
    "inside.test",
    "2130706433",
    "0x7f.1",
  ];
  for (const host of written) {
    await new Promise((turn) => setImmediate(turn)); // the next connection is waited for again
    const tunnel = guest.proxy();
    tunnel.write(`CONNECT ${host}:${port} HTTP/1.1\r\n\r\n`);
    assert.match(await head(tunnel), /^HTTP\/1\.1 (403|502|400) /, host);
    tunnel.destroy();
  }
  assert.equal(guest.egress.status.connected, 0);
  assert.deepEqual(seen, []);
});

test("a sandbox has its share of connections to hosts, however many requests come over one of its own", async () => {
  using guest = new Guest(undefined, { most: 1 });
  const { connect } = await import("node:http2");
  const socket = connectTls({
    ...{ socket: await guest.connect(HOST), servername: HOST, ca: [authority.certificate], ALPNProtocols: ["h2"] },
  });
  await once(socket, "secureConnect");
  const session = connect(`https://${HOST}:${port}`, { createConnection: () => socket });
  session.on("error", () => {});
  const statuses = await Promise.all(
    [1, 2, 3, 4, 5, 6].map(async () => {
      const stream = session.request({ ":path": "/p", ":authority": `${HOST}:${port}` });
      const [head] = await once(stream, "response");
      stream.resume();
      return Number(head[":status"]);
    }),
  );
  session.destroy();
  assert.ok(statuses.includes(200) && statuses.includes(503), statuses.join());
  assert.ok(guest.egress.status.connected <= 3, `${guest.egress.status.connected}`);
});
