/** Against real servers: what a client and a node see of each other through a third. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { Readable } from "node:stream";
import { after, test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { listen, type RunningServer } from "../../api/server.ts";
import { REFUSAL_HEADER } from "../../api/vouched.ts";
import { validateConfig } from "../../config/load.ts";
import { type Call, FLEET_HEADER, Forwarder, type Outcome } from "./forwarder.ts";
import { Upload } from "./upload.ts";

type Handler = (incoming: IncomingMessage, outgoing: ServerResponse) => void;

const owned: (() => unknown)[] = [];
after(async () => {
  await Promise.all(owned.map((end) => end()));
});

async function nodeOf(handler: Handler, id = "there"): Promise<{ id: string; url: string; server: Server }> {
  const server = createServer({ maxHeaderSize: 32_768 }, handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  owned.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { id, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

interface Entrance extends RunningServer {
  outcomes: Outcome[];
}

/** Asks one node after the other as long as they refuse. */
async function entranceTo(
  nodes: { id: string; url: string }[],
  options: ConstructorParameters<typeof Forwarder>[0] = {},
): Promise<Entrance> {
  const forwarder = new Forwarder(options);
  const outcomes: Outcome[] = [];
  const pass = async (call: Call): Promise<boolean> => {
    const upload = new Upload(call.incoming);
    for (const node of nodes) {
      const outcome = await forwarder.forward(call, node, upload, () => "sealed");
      outcomes.push(outcome);
      if (outcome.kind === "answered" || outcome.kind === "left") return true;
      if (outcome.kind !== "refused" || !upload.repeatable) break;
    }
    if (call.upgrade !== undefined) call.upgrade.socket.end("HTTP/1.1 503 Unavailable\r\nconnection: close\r\n\r\n");
    else call.outgoing.writeHead(503).end(outcomes.at(-1)?.kind);
    return true;
  };
  const server = await listen(
    { fetch: () => new Response("not passed on", { status: 500 }) },
    { ...validateConfig({}, "").server, port: 0 },
    {
      processingMs: 50,
      front: {
        request: (incoming, outgoing) => pass({ incoming, outgoing }),
        upgrade: (incoming, socket, head) => pass({ incoming, upgrade: { socket, head } }),
      },
    },
  );
  owned.push(() => server.close(0));
  owned.push(() => forwarder.close());
  return Object.assign(Object.create(server) as RunningServer, { outcomes });
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((wake) => setTimeout(wake, 5));
}

function raw(server: RunningServer, text: string): Socket {
  const socket = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true }).on("error", () => {});
  socket.write(text, "latin1");
  return socket;
}

async function textOf(socket: Readable): Promise<string> {
  const text = Buffer.concat(await socket.toArray()).toString("latin1");
  socket.destroy();
  return text;
}

test("a request and its answer arrive as they are: headers in their order, repeated, of any bytes; status, words and bodies", async () => {
  const node = await nodeOf(async (incoming, outgoing) => {
    const body = Buffer.concat(await incoming.toArray()).toString();
    const { method, url, rawHeaders } = incoming;
    const headers = ["X-One", "1", "X-One", "2", "Set-Cookie", "a=1", "Set-Cookie", "b=2", "X-Latin", "sch\xf6n"];
    outgoing.writeHead(299, "Quite Fine", [...headers, "Connection", "x-hop", "X-Hop", "no"]);
    outgoing.end(JSON.stringify({ method, url, rawHeaders, body }));
  });
  const entrance = await entranceTo([node]);
  const lines = ["PATCH /a%20b?q=%ff#x HTTP/1.1", "Host: 80-sb.localhost", "X-B: sch\xf6n", "x-a: 1", "X-B: 2"];
  const forged = [`X-Stacyvm-Node: forged`, "Connection: close, x-mine", "X-Mine: hop", "Content-Length: 4"];
  const answer = await textOf(raw(entrance, `${[...lines, ...forged].join("\r\n")}\r\n\r\nbody`));
  const [head = "", body = ""] = answer.split("\r\n\r\n");
  assert.match(head, /^HTTP\/1\.1 299 Quite Fine\r\n/);
  assert.match(head, /X-One: 1\r\nX-One: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Latin: sch\xf6n/);
  assert.doesNotMatch(head, /x-hop/i);
  const json = Buffer.from(body.slice(body.indexOf("{"), body.lastIndexOf("}") + 1), "latin1").toString();
  const seen = JSON.parse(json) as Record<string, never>;
  assert.deepEqual([seen.method, seen.url, seen.body], ["PATCH", "/a%20b?q=%ff#x", "body"]);
  const got = seen.rawHeaders as unknown as string[];
  assert.deepEqual(got.slice(0, 12), [
    ...["Host", "80-sb.localhost", "X-B", "sch\xf6n", "x-a", "1", "X-B", "2", "Content-Length", "4"],
    ...[FLEET_HEADER, "sealed"],
  ]);
  assert.equal(got.filter((name) => name.toLowerCase() === FLEET_HEADER).length, 1, "a client cannot say it");
});

test("HEAD, 204 and 304 have no body, and the length that they name; a GET and a DELETE may have one", async () => {
  const node = await nodeOf(async (incoming, outgoing) => {
    const body = Buffer.concat(await incoming.toArray()).toString();
    if (incoming.url === "/304") outgoing.writeHead(304, { etag: '"x"' }).end();
    else if (incoming.url === "/204") outgoing.writeHead(204).end();
    else outgoing.writeHead(200, { "content-length": 5 + body.length }).end(`body:${body}`);
  });
  const entrance = await entranceTo([node]);
  const head = await fetch(`${entrance.url}/`, { method: "HEAD" });
  assert.deepEqual([head.status, head.headers.get("content-length"), await head.text()], [200, "5", ""]);
  assert.equal((await fetch(`${entrance.url}/204`)).status, 204);
  assert.equal((await fetch(`${entrance.url}/304`)).headers.get("etag"), '"x"');
  for (const method of ["GET", "DELETE"]) {
    const chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    assert.match(await textOf(raw(entrance, `${method} / HTTP/1.1\r\nHost: x\r\n${chunked}`)), /\r\n\r\nbody:hi$/);
  }
});

test("a node that dies in the middle of its answer leaves no answer that looks whole", async () => {
  const node = await nodeOf((incoming, outgoing) => {
    outgoing.writeHead(200, incoming.url === "/length" ? { "content-length": 1000 } : {});
    outgoing.write("begun", () => outgoing.socket?.destroy());
  });
  const entrance = await entranceTo([node]);
  for (const path of ["/length", "/chunked"]) {
    const answer = await fetch(`${entrance.url}${path}`);
    assert.equal(answer.status, 200);
    await assert.rejects(answer.text());
  }
});

test("a slow reader holds the node back, and little lies in between", async () => {
  let produced = 0;
  const node = await nodeOf((_incoming, outgoing) => {
    const piece = Buffer.alloc(65_536);
    Readable.from(
      (function* () {
        for (;;) {
          produced += piece.length;
          yield piece;
        }
      })(),
    ).pipe(outgoing);
    outgoing.on("error", () => {});
  });
  const entrance = await entranceTo([node]);
  const socket = raw(entrance, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(socket, "data");
  socket.pause();
  for (let before = -1; before !== produced; await new Promise((wake) => setTimeout(wake, 100))) before = produced;
  assert.ok(produced < 64 * 2 ** 20, `${produced} bytes lie somewhere`);
  socket.destroy();
});

test("a large upload arrives whole through a node that reads slowly, with little memory between", async () => {
  const node = await nodeOf(async (incoming, outgoing) => {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const piece of incoming) {
      hash.update(piece as Buffer);
      bytes += (piece as Buffer).length;
      if (bytes % 7 === 0) await new Promise((wake) => setImmediate(wake));
    }
    outgoing.end(JSON.stringify([bytes, hash.digest("hex")]));
  });
  const entrance = await entranceTo([node]);
  const hash = createHash("sha256");
  let most = 0;
  function* pieces(): Generator<Buffer> {
    for (let i = 0; i < 1600; i++) {
      const piece = Buffer.alloc(131_072, i);
      hash.update(piece);
      most = Math.max(most, process.memoryUsage().arrayBuffers);
      yield piece;
    }
  }
  const before = process.memoryUsage().arrayBuffers;
  const asked = request(`${entrance.url}/`, { method: "PUT" });
  Readable.from(pieces()).pipe(asked);
  const [answer] = (await once(asked, "response")) as [IncomingMessage];
  const [bytes, digest] = JSON.parse(await textOf(answer)) as [number, string];
  assert.deepEqual([bytes, digest], [1600 * 131_072, hash.digest("hex")]);
  assert.ok(most - before < 100 * 2 ** 20, `${most - before} bytes of 210 MB were held`);
});

test("a node hears at once of a client that goes: before the answer, in it, and in the middle of an upload", async () => {
  let open = 0;
  let begun = 0;
  const node = await nodeOf((incoming, outgoing) => {
    open += 1;
    begun += 1;
    outgoing.once("close", () => {
      open -= 1;
    });
    incoming.resume();
    if (incoming.url === "/answer") outgoing.write("begun");
  });
  const entrance = await entranceTo([node]);
  for (const [path, more] of [
    ["/silent", "\r\n"],
    ["/answer", "\r\n"],
    ["/upload", "Content-Length: 1000\r\n\r\nsome"],
  ]) {
    const before = begun;
    const socket = raw(entrance, `POST ${path} HTTP/1.1\r\nHost: x\r\n${more}`);
    await until(() => begun > before);
    if (path === "/answer") await once(socket, "data");
    socket.destroy();
    await until(() => open === 0);
  }
});

test("a client that asks first is told to go on, and the node sees the body alone; 102s come from the entrance", async () => {
  const node = await nodeOf(async (incoming, outgoing) => {
    assert.equal(incoming.headers.expect, undefined);
    const body = Buffer.concat(await incoming.toArray()).toString();
    setTimeout(() => outgoing.end(body), 120);
  });
  const entrance = await entranceTo([node]);
  const asked = request(`${entrance.url}/`, {
    method: "POST",
    headers: { expect: "100-continue", prefer: "processing", "content-length": 4 },
  });
  const interim: number[] = [];
  asked.on("information", ({ statusCode }) => interim.push(statusCode));
  asked.once("continue", () => asked.end("body"));
  asked.flushHeaders();
  const [answer] = (await once(asked, "response")) as [IncomingMessage];
  assert.equal(await textOf(answer), "body");
  assert.deepEqual([...new Set(interim)], [100, 102]);
});

test("an answer before the end of the body frees both connections", async () => {
  const connections = new Set<Socket>();
  const node = await nodeOf((_incoming, outgoing) => outgoing.writeHead(413).end("no"));
  node.server.on("connection", (socket: Socket) => {
    connections.add(socket);
    socket.once("close", () => connections.delete(socket));
  });
  const entrance = await entranceTo([node]);
  const asked = request(`${entrance.url}/`, { method: "PUT", headers: { "content-length": 2 ** 30 } });
  asked.on("error", () => {});
  asked.write(Buffer.alloc(1_000_000));
  const [answer] = (await once(asked, "response")) as [IncomingMessage];
  assert.deepEqual([answer.statusCode, await textOf(answer)], [413, "no"]);
  await until(() => connections.size === 0);
  asked.destroy();
});

test("the head of a stream is there before its first event, and events when they happen", async () => {
  let say: ((text: string) => void) | undefined;
  const node = await nodeOf((_incoming, outgoing) => {
    outgoing.writeHead(200, { "content-type": "text/event-stream" });
    outgoing.flushHeaders();
    say = (text) => void outgoing.write(text);
  });
  const entrance = await entranceTo([node]);
  const answer = await fetch(entrance.url);
  assert.equal(answer.headers.get("content-type"), "text/event-stream");
  const reader = answer.body?.getReader();
  for (const text of ["data: 1\n\n", "data: 2\n\n"]) {
    say?.(text);
    assert.equal(new TextDecoder().decode((await reader?.read())?.value), text);
  }
  await reader?.cancel();
});

test("WebSockets go through both ways with their close; a place without one answers as it does", async () => {
  const node = await nodeOf((_incoming, outgoing) => outgoing.writeHead(404).end("no such place"));
  const sockets = new WebSocketServer({ noServer: true });
  const closes: number[] = [];
  node.server.on("upgrade", (incoming: IncomingMessage, socket: Socket, head: Buffer) => {
    if (incoming.url === "/none") socket.end("HTTP/1.1 409 No\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nno\n");
    else
      sockets.handleUpgrade(incoming, socket, head, (open) => {
        open.on("message", (data, binary) => open.send(data, { binary }));
        open.on("close", (code) => closes.push(code));
        open.send("hello");
      });
  });
  const entrance = await entranceTo([node]);
  const client = new WebSocket(`${entrance.url.replace("http", "ws")}/echo`, ["a", "b"]);
  const got: string[] = [];
  client.on("message", (data) => got.push(String(data).slice(0, 10)));
  await once(client, "open");
  client.send("x".repeat(2_000_000));
  client.send("last");
  await until(() => got.length === 3);
  assert.deepEqual(got, ["hello", "xxxxxxxxxx", "last"]);
  client.close(4001, "enough");
  await until(() => closes.length === 1);
  assert.deepEqual(closes, [4001]);
  const refused = new WebSocket(`${entrance.url.replace("http", "ws")}/none`);
  refused.on("error", () => {});
  const [, answer] = (await once(refused, "unexpected-response")) as [unknown, IncomingMessage];
  assert.deepEqual([answer.statusCode, answer.headers["x-a"]], [409, "1"]);
  refused.terminate();
  // One that goes without a word.
  const lost = new WebSocket(`${entrance.url.replace("http", "ws")}/echo`);
  await once(lost, "open");
  lost.terminate();
  await until(() => closes.length === 2);
});

test("after an upgrade each side ends by itself; when one is cut, so is the other", async () => {
  let node: Socket | undefined;
  const tcp = createTcpServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      node = socket;
      socket.write("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    });
  });
  await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
  owned.push(() => tcp.close());
  const entrance = await entranceTo([{ id: "x", url: `http://127.0.0.1:${(tcp.address() as AddressInfo).port}` }]);
  const UPGRADE = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
  const client = raw(entrance, UPGRADE);
  let heard = "";
  client.on("data", (piece) => {
    heard += piece.toString("latin1");
  });
  await until(() => heard.endsWith("early"));
  const said: string[] = [];
  node?.on("data", (piece) => said.push(piece.toString()));
  client.end("last words");
  await until(() => said.join("") === "last words" && node?.readableEnded === true);
  node?.write("still here");
  await until(() => heard.endsWith("still here"));
  node?.end();
  await until(() => client.readableEnded && client.destroyed);
  // A cut.
  const other = raw(entrance, UPGRADE);
  await once(other, "data");
  node?.resetAndDestroy();
  other.resume();
  await until(() => other.readableEnded || other.destroyed);
  other.destroy();
});

test("a node that does not have it is left, and the next one gets the whole body; a long one has gone by", async () => {
  const first = await nodeOf(
    (_incoming, outgoing) => outgoing.writeHead(421, { [REFUSAL_HEADER]: "not-mine" }).end("{}"),
    "first",
  );
  const second = await nodeOf(async (incoming, outgoing) => {
    outgoing.end(`second: ${Buffer.concat(await incoming.toArray()).length}`);
  }, "second");
  const entrance = await entranceTo([first, second]);
  const post = (body: Buffer): Promise<Response> =>
    fetch(entrance.url, { method: "POST", body: Uint8Array.from(body) });
  assert.equal(await (await fetch(entrance.url)).text(), "second: 0");
  assert.equal(await (await post(Buffer.alloc(60_000))).text(), "second: 60000");
  const slow = request(entrance.url, { method: "POST" });
  slow.write("begun ");
  const half = entrance.outcomes.length;
  await until(() => entrance.outcomes.length > half);
  slow.end("ended");
  const [answer] = (await once(slow, "response")) as [IncomingMessage];
  assert.equal(await textOf(answer), "second: 11");
});

test("what a page says that only nodes say is a page's: it is believed with its status alone", async () => {
  const node = await nodeOf((_incoming, outgoing) =>
    outgoing.writeHead(200, { [REFUSAL_HEADER]: "not-mine" }).end("x"),
  );
  const entrance = await entranceTo([node]);
  assert.equal(await (await fetch(entrance.url)).text(), "x");
  assert.deepEqual(
    entrance.outcomes.map(({ kind }) => kind),
    ["answered"],
  );
});

test("a node that refuses while the body is still coming is done with, also when its connection breaks after the next one was asked", async () => {
  const closed: string[] = [];
  let cut = (): void => {};
  const first = await nodeOf((incoming, outgoing) => {
    incoming.socket.once("close", () => closed.push("first"));
    incoming.on("error", () => {});
    cut = () => incoming.socket.resetAndDestroy();
    outgoing.writeHead(421, { [REFUSAL_HEADER]: "not-mine" }).end("{}");
  }, "first");
  const second = await nodeOf(async (incoming, outgoing) => {
    cut();
    outgoing.end(`second: ${Buffer.concat(await incoming.toArray()).length}`);
  }, "second");
  const entrance = await entranceTo([first, second]);
  const slow = request(entrance.url, { method: "POST" });
  slow.write("begun ");
  await until(() => entrance.outcomes.length > 0 && closed.length > 0);
  for (let i = 0; i < 5; i++) {
    slow.write("more ");
    await new Promise((wake) => setTimeout(wake, 5));
  }
  slow.end("ended");
  const [answer] = (await once(slow, "response")) as [IncomingMessage];
  assert.equal(await textOf(answer), "second: 36");
});

test("a node that this one has certificates for and that speaks no TLS is told nothing", async () => {
  let asked = 0;
  const node = await nodeOf((_incoming, outgoing) => {
    asked += 1;
    outgoing.end();
  });
  const tls = { generation: 1, client: () => ({}) } as unknown as NonNullable<
    ConstructorParameters<typeof Forwarder>[0]
  >["tls"];
  const entrance = await entranceTo([node], { tls });
  assert.equal(await (await fetch(entrance.url)).text(), "unreached");
  assert.equal(asked, 0);
});

test("a node that cannot be reached, one that never answers and one that goes are told apart", async () => {
  const { server, ...gone } = await nodeOf(() => {}, "gone");
  await new Promise((resolve) => server.close(resolve));
  assert.equal(await (await fetch((await entranceTo([gone])).url)).text(), "unreached");

  const up = new Set(["silent"]);
  let asked = 0;
  const silent = await nodeOf(() => {
    asked += 1;
    up.clear();
  }, "silent");
  const waiting = await entranceTo([silent], { answers: (id) => up.has(id) });
  assert.equal(await (await fetch(waiting.url)).text(), "broken");
  assert.equal(asked, 1);

  const cut = await nodeOf((incoming) => incoming.socket.destroy());
  assert.equal(await (await fetch((await entranceTo([cut])).url)).text(), "broken");
});

test("connections are kept, and one that the node has closed meanwhile is not the client's trouble", async () => {
  let connections = 0;
  let cut = false;
  const node = await nodeOf((incoming, outgoing) => {
    if (cut) {
      cut = false;
      incoming.socket.destroy();
    } else outgoing.end("ok");
  });
  node.server.on("connection", () => {
    connections += 1;
  });
  const entrance = await entranceTo([node]);
  for (let i = 0; i < 5; i++) assert.equal(await (await fetch(entrance.url)).text(), "ok");
  assert.equal(connections, 1);
  cut = true;
  assert.equal(await (await fetch(entrance.url)).text(), "ok", "asked again");
  cut = true;
  const post = await fetch(entrance.url, { method: "POST", body: "x" });
  assert.equal(await post.text(), "broken", "what may have been done is not done twice");
});

test("headers as large as a client may send them get through with what is said beside them", async () => {
  const node = await nodeOf((incoming, outgoing) => outgoing.end(String(incoming.rawHeaders.length > 0)));
  const entrance = await entranceTo([node]);
  const fits = await fetch(entrance.url, { headers: { "x-large": "x".repeat(15_800) } });
  assert.equal(fits.status, 200);
  const over = await fetch(entrance.url, { headers: { "x-large": "x".repeat(17_000) } });
  assert.equal(over.status, 431);
});
