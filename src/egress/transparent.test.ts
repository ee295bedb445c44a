import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { after, before, test } from "node:test";
import { decode, encode } from "dns-packet";
import { EgressGuest } from "../../test/egress-guest.ts";
import { UdpServer } from "../../test/udp-server.ts";
import { DatagramKind } from "./datagram.ts";
import type { SharedEgress } from "./egress.ts";
import { HostRules } from "./host-rules.ts";
import type { TrafficLimits } from "./meter.ts";
import { NameServer } from "./name-server.ts";
import { Names } from "./names.ts";

class Guest extends EgressGuest {
  constructor(rules: string[], limits?: TrafficLimits, shared?: SharedEgress) {
    super(rules, {
      ceiling: new HostRules(["*:*", "*:*/udp", `host.stacyvm:${port}`]),
      ...(limits === undefined ? {} : { limits }),
      ...(shared === undefined ? {} : { shared }),
    });
  }
}

let echo: Server;
let port = 0;
before(async () => {
  const open = new Set<Socket>();
  echo = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  echo.on("close", () => {
    for (const socket of open) socket.destroy();
  });
  echo.listen(0, "127.0.0.1");
  await once(echo, "listening");
  port = (echo.address() as AddressInfo).port;
});
after(() => {
  echo.close();
  echo.emit("close");
});

async function read(stream: Duplex): Promise<string> {
  let text = "";
  for await (const part of stream) text += part;
  return text;
}

test("a name has an address of its own, the same each time, and a connection to it reaches the host", async () => {
  using guest = new Guest([`localhost:${port}`, "127.0.0.1:1"]);
  const address = await guest.address("localhost");
  assert.match(address, /^198\.18\.\d+\.\d+$/);
  assert.equal(await guest.address("LocalHost."), address);
  const client = guest.connect(address, port);
  client.end("what the program sends");
  assert.equal(await read(client), "what the program sends");
  assert.equal(guest.egress.status.connected, 1);
  const { answers } = await guest.ask(`${address.split(".").reverse().join(".")}.in-addr.arpa`, "PTR");
  assert.equal((answers[0] as { data: string }).data, "localhost");
});

test("a thousand connections one after the other, and 200 at once, leave nothing", async () => {
  const shared: SharedEgress = {
    ...{ counts: { connected: 0, refused: 0, failed: 0 }, traffic: { sent: 0, received: 0 } },
    ...{ open: 0, mostOpen: 64, pings: 0 },
  };
  using guest = new Guest([`localhost:${port}`], undefined, shared);
  const address = await guest.address("localhost");
  const one = async (at: number): Promise<void> => {
    const client = guest.connect(address, port);
    client.end(`program ${at}`);
    assert.equal(await read(client), `program ${at}`);
  };
  /** Sockets of this process, both ends of each. */
  const sockets = (): number => process.getActiveResourcesInfo().filter((kind) => kind === "TCPSocketWrap").length;
  const before = sockets();
  for (let at = 0; at < 1_000; at++) await one(at);
  await Promise.all(Array.from({ length: 200 }, (_, at) => one(at)));
  while (guest.egress.status.open > 0 || shared.open > 0) await new Promise((next) => setImmediate(next));
  assert.equal(guest.egress.status.connected, 1_200);
  echo.emit("close"); // its own ends, whose programs are gone
  while (sockets() > before) await new Promise((next) => setImmediate(next));
});

test("it has one of IPv6 as well, which leads to the same name", async () => {
  using guest = new Guest([`localhost:${port}`]);
  const { answers } = await guest.ask("localhost", "AAAA");
  const { data: address } = answers[0] as { data: string };
  assert.match(address, /^2001:2::[0-9a-f]+$/);
  const client = guest.connect(address, port);
  client.end("over IPv6");
  assert.equal(await read(client), "over IPv6");
  const digits = `200100020000000000000000${address.split("::")[1]?.padStart(8, "0")}`;
  const reversed = await guest.ask(`${[...digits].reverse().join(".")}.ip6.arpa`, "PTR");
  assert.equal((reversed.answers[0] as { data: string }).data, "localhost");
});

test("a connection is judged by the name that was asked for, not by where it leads", async () => {
  using guest = new Guest([`localhost:${port}`]);
  const address = await guest.address("localhost");
  // The same server, by its address: no rule permits that.
  const literal = guest.connect("127.0.0.1", port);
  await once(literal, "close");
  const other = guest.connect(address, 1);
  await once(other, "close");
  assert.deepEqual(
    guest.refused.map(({ host, port: at }) => `${host}:${at}`),
    [`127.0.0.1:${port}`, "localhost:1"],
  );
});

test("an address that stands for no name is refused, and one of the list may be asked for as it is", async () => {
  using guest = new Guest([`127.0.0.1:${port}`]);
  await once(guest.connect("198.18.7.7", port), "close");
  const client = guest.connect("127.0.0.1", port);
  client.end("by address");
  assert.equal(await read(client), "by address");
});

test("names that are not allowed do not exist, and neither do allowed ones that the host does not know", async () => {
  using guest = new Guest(["localhost:*", "*.invalid:*"]);
  assert.deepEqual(await guest.ask("elsewhere.example"), { code: 3, answers: [] });
  assert.equal(guest.refused[0]?.host, "elsewhere.example");
  assert.deepEqual(await guest.ask("localhost", "TXT"), { code: 0, answers: [] });
  assert.equal((await guest.ask("1.1.18.198.in-addr.arpa", "PTR")).code, 3);
  assert.equal((await guest.ask("1.0.0.127.in-addr.arpa", "PTR")).code, 3);
});

test("questions over a connection to port 53 are answered, one after the other", async () => {
  using guest = new Guest(["localhost:*"]);
  const client = guest.connect("203.0.113.53", 53);
  const messages = ["localhost", "elsewhere.example"].map((name, id) => {
    const message = encode({ type: "query", id, questions: [{ name, type: "A" }] });
    const length = Buffer.alloc(2);
    length.writeUInt16BE(message.length);
    return Buffer.concat([length, message]);
  });
  client.end(Buffer.concat(messages));
  const parts: Buffer[] = [];
  for await (const part of client) parts.push(part as Buffer);
  const all = Buffer.concat(parts);
  const first = all.subarray(2, 2 + all.readUInt16BE());
  const second = all.subarray(2 + first.length + 2);
  assert.equal(decode(first).answers?.length, 1);
  assert.equal((decode(second).flags ?? 0) & 15, 3);
});

test("a program that asks by a connection and reads nothing gets no further: its answers do not pile up", async () => {
  const message = encode({ type: "query", id: 1, questions: [{ name: "elsewhere.example", type: "A" }] });
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  const question = Buffer.concat([length, message]);
  let waiting = 0;
  let most = 0;
  // Its program never reads, so nothing that is written is ever done.
  const channel = new Duplex({
    read() {
      setImmediate(() => this.push(question));
    },
    write(data: Buffer) {
      waiting += data.length;
    },
  });
  channel.on("error", () => {});
  const service = { names: new Names(), permit: () => false, resolve: async () => {} };
  const served = new NameServer(service).connection(channel);
  for (let turn = 0; turn < 20_000; turn++) {
    await new Promise((next) => setImmediate(next));
    most = Math.max(most, waiting + channel.writableLength);
  }
  assert.ok(most < 100 * 1024, `${most} bytes wait`);
  channel.destroy();
  await served;
});

test("what is no question is answered as malformed or not at all, and the next one is answered", async () => {
  using guest = new Guest(["localhost:*"]);
  const cut = encode({ type: "query", id: 7, questions: [{ name: "localhost", type: "A" }] }).subarray(0, 16);
  assert.equal((await guest.send(cut)).code, 1);
  // A name that points to itself.
  const loop = Buffer.from("0007010000010000000000000c00c00c00010001", "hex");
  const none = Buffer.from("000701000000000000000000", "hex");
  for (const message of [loop, none]) assert.notEqual((await guest.send(message)).code, 0);
  const update = encode({ type: "query", id: 8, questions: [{ name: "localhost", type: "A" }] });
  update[2] = 5 << 3;
  assert.equal((await guest.send(update)).code, 4);
  // Names of another class, and of any: what servers are asked for their version by.
  for (const family of ["CH", "ANY"] as const) {
    const other = encode({ type: "query", id: 9, questions: [{ name: "localhost", type: "A", class: family }] });
    assert.deepEqual(await guest.send(other), { code: 5, answers: [] });
  }
  assert.match(await guest.address("localhost"), /^198\.18\./);
});

test("rules that change cut what they no longer permit", async () => {
  using guest = new Guest([`localhost:${port}`]);
  const client = guest.connect(await guest.address("localhost"), port);
  client.write("first");
  assert.equal(String((await once(client, "data"))[0]), "first");
  const closed = once(client, "close");
  guest.egress.allow(new HostRules(["localhost:1"]));
  await closed;
  assert.equal(guest.egress.status.open, 0);
});

test("a refused range of addresses is refused to a name that resolves to it, also to what is open, and the reason says which rule", async () => {
  using guest = new Guest([`localhost:${port}`, "!127.9.0.0/16"]);
  const address = await guest.address("localhost");
  const client = guest.connect(address, port);
  client.write("first");
  await once(client, "data");
  const closed = once(client, "close");
  guest.egress.allow(new HostRules([`localhost:${port}`, "!127.0.0.0/8"]));
  await closed;
  await once(guest.connect(address, port), "close");
  assert.match(
    guest.refused[0]?.reason ?? "",
    /localhost:\d+, which is 127\.0\.0\.1, .*rule !127\.0\.0\.0\/8 of this sandbox/,
  );
  assert.deepEqual(await guest.ask("elsewhere.example"), { code: 3, answers: [] });
  assert.match(guest.refused[1]?.reason ?? "", /no rule of this sandbox permits it/);
});

test("connections over the limit of a minute are reset, and told", async () => {
  using guest = new Guest([`localhost:${port}`], { maxBytes: 0, bytesPerSecond: 0, connectionsPerMinute: 2 });
  const address = await guest.address("localhost");
  for (let i = 0; i < 2; i++) {
    const client = guest.connect(address, port);
    client.end("within");
    assert.equal(await read(client), "within");
  }
  await once(guest.connect(address, port), "close");
  assert.match(guest.refused[0]?.reason ?? "", /more than 2 connections a minute/);
});

test("a sandbox that has had its bytes is cut off in the middle of a connection", async () => {
  using guest = new Guest([`localhost:${port}`], { maxBytes: 100_000, bytesPerSecond: 0, connectionsPerMinute: 0 });
  const client = guest.connect(await guest.address("localhost"), port);
  const closed = once(client, "close");
  client.resume();
  for (let i = 0; i < 20; i++) client.write(Buffer.alloc(10_000));
  await closed;
  assert.ok(guest.egress.status.sent <= 110_000, `${guest.egress.status.sent} bytes`);
});

test("a port of this host: by its own name alone, where the operator permits it, and by no other rule", async () => {
  {
    using guest = new Guest([`host.stacyvm:${port}`, "host.stacyvm:1"]);
    const client = guest.connect(await guest.address("host.stacyvm"), port);
    client.end("what the program sends");
    assert.equal(await read(client), "what the program sends");
    await once(guest.connect(await guest.address("host.stacyvm"), 1), "close");
    assert.match(guest.refused[0]?.reason ?? "", /no rule of `network.allow` of the server/);
  }
  using guest = new Guest(["*:*"]);
  assert.equal((await guest.ask("host.stacyvm")).code, 3);
});

test("datagrams go to a host and port that a rule names with /udp, and answers come back to the socket that asked", async () => {
  const from = new Set<number>();
  await using server = await udpServer(from);
  using guest = new Guest([`localhost:${server.port}/udp`, `127.0.0.1:${server.port}/udp`]);
  const address = await guest.address("localhost");
  assert.deepEqual(await guest.udp(address, server.port, "one"), [DatagramKind.udp, "got one"]);
  assert.deepEqual(await guest.udp(address, server.port, "two"), [DatagramKind.udp, "got two"]);
  assert.deepEqual(await guest.udp("127.0.0.1", server.port, "three", 40_001), [DatagramKind.udp, "got three"]);
  assert.deepEqual(await guest.udp(address, server.port, ""), [DatagramKind.udp, "got "], "an empty one is one");
  assert.equal(from.size, 2, "each of a guest's sockets is one of ours");
  const { open, connected, sent, received } = guest.egress.status;
  assert.deepEqual({ open, connected, sent, received }, { open: 2, connected: 2, sent: 11, received: 27 });
});

test("other datagrams are refused at once: without a rule for them, at another port, and where nobody listens", async () => {
  const from = new Set<number>();
  await using server = await udpServer(from);
  using guest = new Guest([`localhost:${server.port}`, "localhost:1/udp", "10.1.2.3:*/udp"]);
  const address = await guest.address("localhost");
  const refused = [DatagramKind.udpRefused, ""];
  assert.deepEqual(await guest.udp(address, server.port, "a rule for connections is none for datagrams"), refused);
  assert.match(guest.refused[0]?.reason ?? "", /localhost:\d+\/udp is not among the hosts/);
  assert.deepEqual(await guest.udp("10.1.2.3", 9, "no public address"), refused);
  assert.match(guest.refused[1]?.reason ?? "", /no public address/);
  assert.deepEqual(await guest.udp(address, 1, "nobody there"), refused);
  assert.equal(from.size, 0);
  assert.equal(guest.egress.status.open, 0);
});

test("datagrams are judged again when rules change, and end with the network", async () => {
  await using server = await udpServer();
  const rule = `localhost:${server.port}/udp`;
  using guest = new Guest([rule]);
  const address = await guest.address("localhost");
  await guest.udp(address, server.port, "one");
  const cut = guest.next();
  guest.egress.allow(new HostRules([rule, "!127.0.0.0/8:1-65535/udp"]));
  assert.equal((await cut).kind, DatagramKind.udpRefused, "the program is told at once");
  assert.equal(guest.egress.status.open, 0);
  assert.deepEqual(await guest.udp(address, server.port, "two"), [DatagramKind.udpRefused, ""]);
  guest.egress.allow(new HostRules([rule]));
  assert.deepEqual(await guest.udp(address, server.port, "three"), [DatagramKind.udp, "got three"]);
  guest.egress.stop();
  assert.equal(guest.egress.status.open, 0);
});

test("datagrams count within the limits: addresses at once, and bytes", async () => {
  await using server = await udpServer();
  using guest = new Guest([`localhost:${server.port}/udp`], {
    maxBytes: 1_000,
    bytesPerSecond: 0,
    connectionsPerMinute: 0,
  });
  const address = await guest.address("localhost");
  for (let from = 1; from <= 20; from++) {
    assert.deepEqual(await guest.udp(address, server.port, "x", from), [DatagramKind.udp, "got x"]);
  }
  assert.equal(guest.egress.status.open, 16, "the ones that nothing was sent over for longest are gone");
  assert.deepEqual(await guest.udp(address, server.port, "x".repeat(2_000), 20), [DatagramKind.udpRefused, ""]);
});

test("an echo is answered when the host that is allowed answers one, and refused for any other", async () => {
  using guest = new Guest(["localhost:1", "!127.0.0.2"]);
  guest.answering = ["127.0.0.1"];
  const { kind, payload } = await guest.echo(await guest.address("localhost"));
  assert.deepEqual([kind, String(payload)], [DatagramKind.echo, "id,number,data"]);
  for (const address of ["127.0.0.1", "127.0.0.2", "203.0.113.9", "198.18.7.7"]) {
    assert.equal((await guest.echo(address)).kind, DatagramKind.echoRefused, address);
  }
  assert.equal(guest.refused.length, 4);
});

test("an echo for which no place is left among those of all sandboxes is lost, and the next one that finds one is answered", async () => {
  let pings = 16;
  const looked = Promise.withResolvers<void>();
  const places: number[] = [];
  const shared: SharedEgress = {
    counts: { connected: 0, refused: 0, failed: 0 },
    traffic: { sent: 0, received: 0 },
    open: 0,
    mostOpen: 1,
    get pings() {
      looked.resolve();
      return pings;
    },
    set pings(now) {
      places.push(now);
      pings = now;
    },
  };
  using guest = new Guest(["localhost", "127.0.0.1"], undefined, shared);
  guest.answering = ["127.0.0.1"];
  const came = guest.echo(await guest.address("localhost"));
  await looked.promise;
  pings = 15;
  void guest.echo("127.0.0.1");
  assert.equal((await came).other.address, "127.0.0.1", "nothing came for the first");
  assert.deepEqual(places, [16, 15]);
});

test("few sandboxes that ask silent hosts leave places to the others", async () => {
  const shared: SharedEgress = {
    counts: { connected: 0, refused: 0, failed: 0 },
    traffic: { sent: 0, received: 0 },
    open: 0,
    mostOpen: 1,
    pings: 0,
  };
  for (const most of [8, 4, 2, 1]) {
    let asked = 0;
    const all = Promise.withResolvers<void>();
    const ping = (): Promise<never> => {
      if (++asked === most) all.resolve();
      return new Promise(() => {});
    };
    const guest = new EgressGuest(["*"], { shared, ping });
    after(() => guest[Symbol.dispose]());
    for (let host = 1; host <= 8; host++) void guest.echo(`9.9.9.${host}`);
    await all.promise;
    // What it may not ask is lost by now: they are looked at in turn.
    await new Promise(setImmediate);
    assert.equal(asked, most);
  }
  using other = new EgressGuest(["*"], { shared });
  other.answering = ["9.9.9.9"];
  assert.equal((await other.echo("9.9.9.9")).kind, DatagramKind.echo);
});

test("an echo counts as a connection within the limit of a minute", async () => {
  using guest = new Guest(["localhost", "127.0.0.1"], { maxBytes: 0, bytesPerSecond: 0, connectionsPerMinute: 1 });
  guest.answering = ["127.0.0.1"];
  assert.equal((await guest.echo(await guest.address("localhost"))).kind, DatagramKind.echo);
  assert.equal((await guest.echo("127.0.0.1")).kind, DatagramKind.echoRefused);
  assert.match(guest.refused[0]?.reason ?? "", /more than 1 connections a minute/);
});

/** Answers each datagram with "got" and what it had; `from` are the ports that it came from. */
async function udpServer(from = new Set<number>()): Promise<UdpServer> {
  return UdpServer.open("127.0.0.1", (payload, { port }) => {
    from.add(port);
    return `got ${payload}`;
  });
}
