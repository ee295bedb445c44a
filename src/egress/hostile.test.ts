/**
 * What a hostile guest tries, against every way out: the proxy, connections to any address, datagrams and echoes. The rules permit all,
 * so that what stands in the way is what is tested. Everything that must not be reached is a trap on this host.
 */
import assert from "node:assert/strict";
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer, isIPv4, isIPv6, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { after, afterEach, before, test } from "node:test";
import { encode } from "dns-packet";
import { EgressGuest, type EgressGuestOptions } from "../../test/egress-guest.ts";
import { type Datagram, DatagramKind } from "./datagram.ts";
import type { SharedEgress } from "./egress.ts";
import { normaliseHost } from "./host-rules.ts";

const ALL = ["*:*", "*:*/udp"];
/** Stands for a public address: the operator has opened it. */
const OUTSIDE = "127.8.8.7";
const VALUE = "answer of the right host";

/** What came to an address and port of this host, by TCP and by UDP. */
class Listener {
  readonly heard: string[] = [];
  readonly #tcp: Server;
  readonly #udp: DatagramSocket = createSocket("udp4");
  readonly #open = new Set<Socket>();

  constructor() {
    this.#tcp = createServer((socket) => {
      this.#open.add(socket);
      this.heard.push("");
      const at = this.heard.length - 1;
      socket.on("error", () => {});
      socket.on("data", (data) => {
        const text = `${this.heard[at]}${data}`;
        this.heard[at] = text;
        if (!text.includes("\r\n\r\n")) return;
        socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${VALUE.length}\r\nConnection: close\r\n\r\n${VALUE}`);
      });
      socket.on("end", () => socket.end());
    });
    this.#udp.on("message", (payload, from) => {
      this.heard.push(`udp ${payload}`);
      this.#udp.send(VALUE, from.port, from.address);
    });
  }

  /** @returns the port, the same for both */
  async listen(address: string, port = 0): Promise<number> {
    this.#tcp.listen(port, address);
    await once(this.#tcp, "listening");
    const { port: taken } = this.#tcp.address() as AddressInfo;
    this.#udp.bind(taken, address);
    await once(this.#udp, "listening");
    return taken;
  }

  close(): void {
    for (const socket of this.#open) socket.destroy();
    this.#tcp.close();
    this.#udp.close();
  }
}

const trap = new Listener();
const outside = new Listener();
let port = 0;
before(async () => {
  port = await trap.listen("127.0.0.1");
  await outside.listen(OUTSIDE, port);
});
afterEach(() => {
  outside.heard.length = 0;
});
after(() => {
  trap.close();
  outside.close();
});

/** What came of it until the end, whichever that was. */
async function answerTo(client: Duplex, text: string): Promise<string> {
  let said = "";
  client.on("data", (data) => {
    said += data;
  });
  const closed = client.destroyed || once(client, "close");
  client.write(text, "latin1");
  client.once("end", () => client.end());
  await closed;
  return said;
}

/** The ways out, each to a host by a name or an address. @returns what came back */
const WAYS: Record<string, (guest: EgressGuest, host: string) => Promise<string>> = {
  tunnel: (guest, host) =>
    answerTo(guest.proxy(), `CONNECT ${bracketed(host)}:${port} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n`),
  async request(guest, host) {
    return answerTo(
      guest.proxy(),
      `GET http://${bracketed(host)}:${port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
    );
  },
  async connection(guest, host) {
    const address = await resolved(guest, host);
    return address === undefined ? "no such name" : answerTo(guest.connect(address, port), "GET / HTTP/1.1\r\n\r\n");
  },
  async datagram(guest, host) {
    const address = await resolved(guest, host);
    return address === undefined ? "no such name" : said(await guest.datagram(datagramTo(address)));
  },
  async echo(guest, host) {
    const address = await resolved(guest, host);
    return address === undefined ? "no such name" : said(await guest.echo(address));
  },
};

const REACHED: Record<string, RegExp> = {
  ...{ tunnel: /answer of/, request: /answer of/, connection: /answer of/ },
  ...{ datagram: /^0 answer of/, echo: new RegExp(`^${DatagramKind.echo} `) },
};

function datagramTo(address: string): Datagram {
  const guest = { address: "198.19.255.254", port: 40_000 };
  return { kind: DatagramKind.udp, guest, other: { address, port }, payload: Buffer.from("hello") };
}

function said({ kind, payload }: Datagram): string {
  return `${kind} ${payload}`;
}

/** Sockets have theirs. */
const turn = (): Promise<void> => new Promise((next) => setImmediate(next));

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** As a program has it: an address as it is, a name by asking for it. */
async function resolved(guest: EgressGuest, host: string): Promise<string | undefined> {
  if (isIPv4(host)) return host;
  if (isIPv6(host)) return normaliseHost(host); // as the agent hands it over
  const { answers } = await guest.ask(host);
  const [record] = answers;
  return record?.type === "A" ? record.data : undefined;
}

function guestWith(options: EgressGuestOptions = {}, rules = ALL): EgressGuest {
  const guest = new EgressGuest(rules, { opened: [OUTSIDE], maxConnections: 64, ...options });
  guest.answering = [OUTSIDE, "127.0.0.1"];
  return guest;
}

test("each way reaches what is permitted: the table below would say nothing otherwise", async () => {
  for (const host of [OUTSIDE, "outside.test"]) {
    using guest = guestWith({ names: { "outside.test": OUTSIDE } });
    for (const [way, reach] of Object.entries(WAYS)) {
      assert.match(await reach(guest, host), REACHED[way] ?? /^$/, `${way} to ${host}`);
    }
  }
  assert.equal(outside.heard.length, 8);
});

/** This host, private networks, metadata and what is reserved, in every notation that some program or resolver takes. */
const ADDRESSES = [
  ...[
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.5",
    "172.31.255.254",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
  ],
  ...["168.63.129.16", "192.0.0.170", "198.18.7.7", "198.19.255.254", "224.0.0.1", "240.0.0.1", "255.255.255.255"],
  ...["::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1"],
  ...["64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "fd00::1", "fe80::1", "fec0::1", "ff02::1", "2002:7f00:1::", "100::1"],
  ...["2001:0:7f00:1::1", "2001:2::7", "2001:db8::5efe:7f00:1", "5f00::1"],
];
const WRITTEN_AS_NAMES = [
  ...["localhost", "LOCALHOST.", "127.0.0.1.", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1"],
  ...["017700000001", "①②⑦.⓪.⓪.①", "127。0。0。1", "127.0.0.1%00", "127.0.0.1 ", "[::1]", "::1%lo", "inside.test"],
  ...["meta.test", "six.test", "mapped.test", "host.stacyvm", "HOST.STACYVM.", "198.18.0.1.", "%31%32%37.0.0.1"],
];

test("what is not public is reached in no notation, by no name, and by no way", async () => {
  const names = {
    ...{ "inside.test": "10.0.0.5", "meta.test": "169.254.169.254", localhost: "127.0.0.1" },
    ...{ "six.test": "::1", "mapped.test": "::ffff:127.0.0.1" },
  };
  for (const host of [...ADDRESSES, ...WRITTEN_AS_NAMES]) {
    using guest = guestWith({ names });
    for (const [way, reach] of Object.entries(WAYS)) {
      assert.doesNotMatch(await reach(guest, host), REACHED[way] ?? /^/, `${way} to ${host}`);
    }
    assert.deepEqual([trap.heard, guest.pinged, guest.egress.status.connected], [[], [], 0], host);
  }
});

test("a refused range is refused in every notation and to every name that leads there, and the reason names the rule", async () => {
  using guest = guestWith(
    { opened: ["127.0.0.0/8"], names: { "inside.test": "127.0.0.1", "mapped.test": "::ffff:127.0.0.1" } },
    [...ALL, "!127.0.0.0/16"],
  );
  for (const host of [
    "127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "0x7f000001",
    "2130706433",
    "inside.test",
    "mapped.test",
  ]) {
    for (const [way, reach] of Object.entries(WAYS)) {
      assert.doesNotMatch(await reach(guest, host), REACHED[way] ?? /^/, `${way} to ${host}`);
    }
  }
  assert.deepEqual([trap.heard, guest.pinged], [[], []]);
  assert.ok(guest.refused.length > 0);
  for (const { reason } of guest.refused) assert.match(reason, /the rule !127\.0\.0\.0\/16 of this sandbox/);
});

test("a refused address is refused as the NAT64 of the host's network would reach it, asked for as it is and behind a name", async () => {
  using guest = guestWith({ names: { "nat64.test": "64:ff9b::203.0.113.7" } }, [...ALL, "!203.0.113.0/24"]);
  for (const host of ["64:ff9b::203.0.113.7", "64:ff9b::cb00:7107", "nat64.test"]) {
    for (const [way, reach] of Object.entries(WAYS)) {
      assert.doesNotMatch(await reach(guest, host), REACHED[way] ?? /^/, `${way} to ${host}`);
    }
  }
  assert.deepEqual([guest.pinged, guest.egress.status.connected], [[], 0]);
  assert.ok(guest.refused.length > 0);
  for (const { reason } of guest.refused) assert.match(reason, /the rule !203\.0\.113\.0\/24 of this sandbox/);
});

test("a name that changes where it leads: each connection goes to an address that was looked at, never to the next answer", async () => {
  for (const [way, reach] of Object.entries(WAYS)) {
    // Whoever owns the name tells the guest's question, then the connection, something else each time.
    const answers = [
      [OUTSIDE],
      ["127.0.0.1"],
      [OUTSIDE, "127.0.0.1"],
      ["127.0.0.1", OUTSIDE],
      ["10.0.0.5", "127.0.0.1"],
    ];
    let asked = 0;
    using guest = guestWith({
      resolve: async (name) => {
        if (/^\d/.test(name)) return [name];
        return answers[asked++ % answers.length] ?? [];
      },
    });
    for (let turn = 0; turn < 2 * answers.length; turn++) await reach(guest, "rebind.test");
    assert.deepEqual(trap.heard, [], way);
    assert.deepEqual(
      [...new Set(guest.pinged)].filter((address) => address !== OUTSIDE),
      [],
      way,
    );
    assert.ok(asked > 0);
  }
});

test("addresses that an agent cannot have been asked for are refused like any other", async () => {
  using guest = guestWith({ names: { "outside.test": OUTSIDE } });
  const strange = [
    "",
    "localhost",
    "127.0.0.53",
    "198.18.0.1.5",
    "2001:2::zz",
    "2001:2::",
    "::ffff:127.0.0.1%lo",
    "127.0.0.1:80",
    "a b",
  ];
  for (const address of strange) await once(guest.connect(address, port).resume(), "close");
  for (const at of [0, -1, 65_536, Number.NaN]) await once(guest.connect(OUTSIDE, at).resume(), "close");
  assert.deepEqual([trap.heard, outside.heard, guest.egress.status.connected], [[], [], 0]);
  assert.match((await WAYS.connection?.(guest, "outside.test")) ?? "", /answer of/);
});

/** What a proxy and a server might read differently. `H` is the host that is permitted, `T` the trap. */
const SMUGGLED = [
  "CONNECT user@T HTTP/1.1\r\n\r\n",
  "CONNECT H@T HTTP/1.1\r\n\r\n",
  "CONNECT T#H HTTP/1.1\r\n\r\n",
  "CONNECT T\\@H HTTP/1.1\r\n\r\n",
  "CONNECT http://T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "CONNECT T/H HTTP/1.1\r\n\r\n",
  "CONNECT 127.0.0.1:0 HTTP/1.1\r\n\r\n",
  "CONNECT 127.0.0.1:99999 HTTP/1.1\r\n\r\n",
  "CONNECT 127.0.0.1:0x50 HTTP/1.1\r\n\r\n",
  "CONNECT [::1:443 HTTP/1.1\r\n\r\n",
  "GET http://H@T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http://H:x@T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http://T\\@H/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http://T#@H/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http://T?@H/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http:T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http:///T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET //T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET / HTTP/1.1\r\nHost: T\r\n\r\n",
  "GET https://T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET ftp://T/ HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET file:///etc/passwd HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http://H/ HTTP/1.1\r\nHost: H\r\nHost: T\r\n\r\n",
  "GET http://H/ HTTP/1.1\r\nHost : T\r\n\r\n",
  "GET http://H/ HTTP/1.1\r\nHost: H\r\n Folded: T\r\n\r\n",
  "GET http://H/ HTTP/1.1\r\nHost: H\r\nX: \u0000\r\n\r\n",
  "GET http://H/\u0000 HTTP/1.1\r\nHost: H\r\n\r\n",
  "GET http://H/ HTTP/1.1 GET http://T/ HTTP/1.1\r\n\r\n",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nabcdGET http://T/ HTTP/1.1\r\n\r\n",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://T/ HTTP/1.1\r\n\r\n",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET http://T/ HTTP/1.1\r\n\r\n",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET http://T/ HTTP/1.1\r\n\r\n",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET http://T/ HTTP/1.1\r\n\r\n",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nContent-Length: +4\r\n\r\nabcd",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nContent-Length: 4\r\nConnection: content-length, host\r\n\r\nabcdGET http://T/ HTTP/1.1\r\n\r\n",
  "POST http://H/ HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n4;x=\ny\r\nabcd\r\n0\r\n\r\nGET http://T/ HTTP/1.1\r\n\r\n",
  "GET http://H/ HTTP/1.1\r\nHost: H\r\n\r\nGET http://T/ HTTP/1.1\r\nHost: T\r\n\r\n",
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  "\u0016\u0003\u0001\u0000\u0005hello",
];

test("a body in another transfer coding than chunks is refused before the host is dialled", async () => {
  using guest = guestWith({}, [`${OUTSIDE}:${port}`]);
  const client = guest.proxy();
  const at = `${OUTSIDE}:${port}`;
  client.write(`POST http://${at}/ HTTP/1.1\r\nHost: ${at}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`);
  assert.match(String((await once(client, "data"))[0]), /^HTTP\/1\.1 400 /);
  assert.equal(guest.egress.status.connected, 0);
  client.destroy();
});

test("requests that two readers might read differently reach the host that they are for, as one request, or nobody", async () => {
  for (const text of SMUGGLED) {
    using guest = guestWith({}, [`${OUTSIDE}:${port}`]);
    outside.heard.length = 0;
    const client = guest.proxy();
    const written = text
      .replaceAll("T\r", `127.0.0.1:${port}\r`)
      .replaceAll(/\bT\b(?=[\\/#?@ \r]|$)/g, `127.0.0.1:${port}`);
    const closed = once(client.resume(), "close");
    client.end(written.replaceAll(/\bH\b(?=[\\/#?@: \r]|$)/g, `${OUTSIDE}:${port}`), "latin1");
    await closed;
    assert.deepEqual(trap.heard, [], JSON.stringify(text));
    assert.ok(outside.heard.length <= 1, JSON.stringify(text));
    for (const request of outside.heard) {
      assert.ok(!request.includes("127.0.0.1"), `${JSON.stringify(text)} became ${JSON.stringify(request)}`);
      assert.equal(request.match(/^host: /gim)?.length, 1);
      assert.match(request, new RegExp(`^host: ${OUTSIDE.replaceAll(".", "\\.")}:${port}\r$`, "im"));
    }
    assert.match((await WAYS.request?.(guest, OUTSIDE)) ?? "", /answer of/, `after ${JSON.stringify(text)}`);
  }
});

/** Questions that cost more to read than to ask, or that say something else than they seem. */
function hostileQuestions(): Record<string, Buffer> {
  const ask = (name: string): Buffer => encode({ type: "query", id: 7, questions: [{ name, type: "A" }] });
  const with_ = (message: Buffer, at: number, count: number, rest: Buffer = Buffer.alloc(0)): Buffer => {
    const out = Buffer.concat([message, rest]);
    out.writeUInt16BE(count, at);
    return out;
  };
  const long = ask(Array(120).fill("a").join("."));
  const pointers = Buffer.concat(Array(2_000).fill(Buffer.from([0xc0, 12, 0, 1, 0, 1])));
  return {
    "many questions, each a pointer to a long name": with_(long, 4, 2_001, pointers),
    "many answers in a question": with_(
      long,
      6,
      2_000,
      Buffer.concat(Array(1_000).fill(Buffer.from("c00c0001000100000000000401020304", "hex"))),
    ),
    "counts beyond what there is": with_(ask("outside.test"), 10, 65_535),
    "no question": with_(ask("outside.test"), 4, 0),
    "a pointer to itself": Buffer.from("000701000001000000000000c00c00010001", "hex"),
    "a pointer ahead": Buffer.from("000701000001000000000000c0ff00010001", "hex"),
    "two pointers in a ring": Buffer.from("000701000001000000000000c00ec00c00010001", "hex"),
    "a label beyond the end": Buffer.from("0007010000010000000000003f61", "hex"),
    "a reserved label": Buffer.from("000701000001000000000000806100010001", "hex"),
    "a name of 300 bytes": with_(
      Buffer.alloc(12),
      4,
      1,
      Buffer.concat([...Array(150).fill(Buffer.from([1, 97])), Buffer.from([0, 0, 1, 0, 1])]),
    ),
    "the root": ask("."),
    "an answer": with_(ask("outside.test"), 2, 0x8180),
    "another kind of message": with_(ask("outside.test"), 2, 0x2900),
    "a transfer of the zone": encode({ type: "query", id: 7, questions: [{ name: "outside.test", type: "AXFR" }] }),
    "a label with a dot in it": Buffer.from("0007010000010000000000000c6f7574736964652e7465737400" + "00010001", "hex"),
    "a label with a NUL in it": Buffer.from("000701000001000000000000046f007574047465737400" + "00010001", "hex"),
    "half a header": Buffer.alloc(7),
    nothing: Buffer.alloc(0),
  };
}

test("hostile questions for names: an answer that gives nothing away or none, and the next program has its own", async () => {
  using guest = guestWith({ names: { "outside.test": OUTSIDE, "inside.test": "10.0.0.5" } }, ["outside.test:*"]);
  const right = await guest.address("outside.test");
  for (const [what, question] of Object.entries(hostileQuestions())) {
    for (let i = 0; i < 8; i++) guest.throwQuestion(question);
    const client = guest.connect("203.0.113.53", 53);
    const length = Buffer.alloc(2);
    length.writeUInt16BE(question.length);
    client.end(Buffer.concat([length, question]));
    assert.ok(!(await client.toArray()).join("").includes("\u000a\u0000\u0000\u0005"), what);
    // Answers to the datagrams come in order, so its own is the last one.
    while (true) {
      const { payload } = await guest.datagram({
        ...{
          kind: DatagramKind.udp,
          guest: { address: "198.19.255.254", port: 2 },
          other: { address: "127.0.0.53", port: 53 },
        },
        payload: encode({ type: "query", id: 9, questions: [{ name: "outside.test", type: "A" }] }),
      });
      if (payload.readUInt16BE() === 9) break;
    }
  }
  assert.equal(await guest.address("outside.test"), right);
  // What follows a question is not read at all: thousands of names that point to others were the work of half a second.
  const followed = hostileQuestions()["counts beyond what there is"];
  assert.equal((await guest.send(followed ?? Buffer.alloc(0))).code, 0);
});

test("a program that leaves before it is connected: what is under way for it has a bound, and is given back", async () => {
  const looking: (() => void)[] = [];
  let slow = true;
  using guest = guestWith({
    maxConnections: 8,
    // As a name server that takes its time.
    resolve: async () => {
      if (slow) await new Promise<void>((settle) => looking.push(settle));
      return [OUTSIDE];
    },
  });
  for (let round = 0; round < 20; round++) {
    const client = guest.proxy();
    client.write(`CONNECT slow.test:${port} HTTP/1.1\r\n\r\n`);
    const before = looking.length;
    while (looking.length === before && before < 16) await turn();
    const closed = once(client, "close");
    client.destroy();
    await closed;
    while (guest.egress.status.open > 0) await turn();
  }
  const most = looking.length;
  assert.equal(most, 16, "twice as many as it may have open");
  const refused = await answerTo(guest.proxy(), `CONNECT slow.test:${port} HTTP/1.1\r\n\r\n`);
  assert.match(refused, /^HTTP\/1\.1 503 [\s\S]*16 connections to hosts/);
  slow = false;
  for (const found of looking) found();
  let answered = refused;
  while (answered.startsWith("HTTP/1.1 503")) {
    await turn();
    answered = (await WAYS.tunnel?.(guest, "slow.test")) ?? "";
  }
  assert.match(answered, /answer of/);
});

test("floods by every way at once: each keeps to its bound, few are told of, and the next program has its connection", async () => {
  const shared: SharedEgress = {
    ...{ counts: { connected: 0, refused: 0, failed: 0 }, traffic: { sent: 0, received: 0 } },
    ...{ open: 0, mostOpen: 64, pings: 0 },
  };
  let most = 0;
  using guest = guestWith({
    ...{ shared, maxConnections: 8 },
    resolve: async (name) => {
      most = Math.max(most, shared.open);
      await turn();
      return name.startsWith("in") ? ["10.0.0.5"] : [OUTSIDE];
    },
  });
  guest.ignoreDatagrams();
  const clients: Duplex[] = [];
  for (let at = 0; at < 150; at++) {
    const host = `${at % 2 === 0 ? "in" : "out"}${at}.test`;
    const question = encode({ type: "query", id: at, questions: [{ name: host, type: "A" }] });
    for (let copy = 0; copy < 4; copy++) guest.throwQuestion(question);
    guest.throw({ ...datagramTo(`203.0.113.${at % 250}`), guest: { address: "198.19.255.254", port: 1 + at } });
    guest.throw({ ...datagramTo(`203.0.113.${at % 250}`), kind: DatagramKind.echo });
    const proxied = guest.proxy();
    proxied.write(`CONNECT ${host}:${port} HTTP/1.1\r\n\r\n`);
    clients.push(proxied, guest.connect(OUTSIDE, port));
  }
  for (const client of clients) client.on("error", () => {}).resume();
  while (outside.heard.length < 4) await turn();
  const { open } = guest.egress.status;
  assert.ok(open <= 16, `${open} are open: eight connections, and eight addresses of datagrams`);
  for (const client of clients) client.destroy();
  while (guest.waiting > 0 || guest.egress.status.open > 8) await turn();
  assert.ok(most <= 64 && guest.refused.length <= 256, `${most} at once, ${guest.refused.length} told`);
  assert.match((await WAYS.connection?.(guest, OUTSIDE)) ?? "", /answer of/);
  guest.egress.stop();
  while (shared.open > 0) await turn();
  assert.deepEqual([guest.egress.status.open, trap.heard], [0, []]);
});

test("slow peers hold a place each and no more: a request byte by byte, a question cut short, a host that says nothing", async () => {
  using guest = guestWith({ maxConnections: 8 });
  const slow: Duplex[] = [];
  for (let at = 0; at < 4; at++) {
    const request = guest.proxy();
    for (const byte of "CONNECT slow.te") request.write(byte);
    const question = guest.connect("203.0.113.53", 53);
    question.write(Buffer.from([0, 99, 1]));
    slow.push(request, question);
  }
  while (guest.egress.status.open < 8) await turn();
  // All places are taken, so these wait, and each that goes lets one in.
  const next = answerTo(guest.connect(OUTSIDE, port), "GET / HTTP/1.1\r\n\r\n");
  const after = answerTo(guest.proxy(), `CONNECT ${OUTSIDE}:${port} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n`);
  await turn();
  assert.deepEqual([guest.egress.status.open, outside.heard], [8, []]);
  for (const each of slow) each.destroy();
  assert.match(await next, /answer of/);
  assert.match(await after, /answer of/);
});
