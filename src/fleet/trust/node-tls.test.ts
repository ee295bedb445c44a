/** Nodes know each other by certificates of one authority, and by new ones while they run. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempDisposable, readFile, rename, writeFile } from "node:fs/promises";
import { createServer as createPlainServer, type IncomingMessage } from "node:http";
import { createServer, type Server } from "node:https";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { Forwarder } from "../forwarding/forwarder.ts";
import { Upload } from "../forwarding/upload.ts";
import { NodeTls, type TlsFiles } from "./node-tls.ts";

const run = promisify(execFile);
const owned: (() => unknown)[] = [];
after(() => Promise.all(owned.map((end) => end())));

/** A certificate for this host by that authority, for both sides of a connection. */
async function certificate(dir: string, ca: string, name: string): Promise<TlsFiles> {
  const [key, request, made, more] = [`${name}.key`, `${name}.csr`, `${name}.crt`, `${name}.ext`].map((f) =>
    join(dir, f),
  );
  await writeFile(more ?? "", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n");
  const fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await run("openssl", ["req", ...fresh, "-keyout", key ?? "", "-out", request ?? "", "-subj", `/CN=${name}`]);
  const by = ["-CA", `${join(dir, ca)}.crt`, "-CAkey", `${join(dir, ca)}.key`, "-days", "2", "-extfile", more ?? ""];
  await run("openssl", ["x509", "-req", "-in", request ?? "", ...by, "-out", made ?? ""]);
  return { certificate: made ?? "", key: key ?? "", ca: `${join(dir, ca)}.crt` };
}

async function authority(dir: string, name: string): Promise<void> {
  const fresh = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "2",
    "-subj",
    `/CN=${name}`,
  ];
  await run("openssl", [
    "req",
    "-x509",
    ...fresh,
    "-keyout",
    `${join(dir, name)}.key`,
    "-out",
    `${join(dir, name)}.crt`,
  ]);
}

async function serverOf(tls: NodeTls): Promise<{ server: Server; url: string }> {
  const server = createServer(tls.server(), (incoming, outgoing) => {
    outgoing.end((incoming.socket as TLSSocket).getPeerX509Certificate()?.subject ?? "nobody");
  });
  server.on("upgrade", (_incoming, socket: Socket) => {
    socket.write("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
    socket.on("error", () => {}).once("end", () => socket.end());
    socket.resume();
  });
  tls.onChange((loaded) => server.setSecureContext(loaded));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  owned.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { server, url: `https://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** What a client hears of an upgrade that is passed on. */
async function upgraded(tls: NodeTls, url: string): Promise<string> {
  const forwarder = new Forwarder({ tls });
  const { promise, resolve } = Promise.withResolvers<string>();
  const entrance = createPlainServer();
  entrance.on("upgrade", (incoming: IncomingMessage, socket: Socket, head: Buffer) => {
    const call = { incoming, upgrade: { socket, head } };
    void forwarder
      .forward(call, { id: "x", url }, new Upload(incoming), () => "")
      .then((outcome) => {
        if (outcome.kind !== "answered") resolve(outcome.kind);
      });
  });
  await new Promise<void>((done) => entrance.listen(0, "127.0.0.1", done));
  const client = connect((entrance.address() as AddressInfo).port, "127.0.0.1");
  client.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  client.on("data", (piece) => {
    if (piece.includes("hello")) resolve("hello");
  });
  const heard = await promise;
  client.destroy();
  entrance.close();
  forwarder.close();
  return heard;
}

async function open(files: TlsFiles, said: (Error | undefined)[] = []): Promise<NodeTls> {
  const tls = await NodeTls.open(files, (error) => said.push(error));
  owned.push(() => tls[Symbol.dispose]());
  return tls;
}

async function ask(tls: NodeTls | undefined, url: string): Promise<string> {
  const forwarder = new Forwarder({ tls });
  try {
    const question = { method: "GET", path: "/", headers: [] };
    return (await forwarder.ask({ id: "x", url }, question, () => "", AbortSignal.timeout(5_000))).body.toString();
  } finally {
    forwarder.close();
  }
}

test("only certificates of the fleet's authority open a connection, in both directions", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "fleet-tls-"));
  await Promise.all([authority(dir.path, "ours"), authority(dir.path, "theirs")]);
  const [one, two, foreign] = await Promise.all([
    certificate(dir.path, "ours", "one"),
    certificate(dir.path, "ours", "two"),
    certificate(dir.path, "theirs", "foreign"),
  ]);
  const { url } = await serverOf(await open(one));
  assert.equal(await ask(await open(two), url), "CN=two");
  assert.equal(await upgraded(await open(two), url), "hello");
  assert.equal(await upgraded(await open(foreign), url), "unreached");
  await assert.rejects(ask(undefined, url));
  await assert.rejects(ask(await open(foreign), url), "its authority does not know the node");
  // It believes the node, and the node does not believe it.
  await assert.rejects(ask(await open({ ...foreign, ca: two.ca }), url));
});

test("new files are good for new connections at once; files that do not fit leave the old ones in force", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "fleet-tls-"));
  await authority(dir.path, "ours");
  const [one, two, next] = await Promise.all(["one", "two", "next"].map((name) => certificate(dir.path, "ours", name)));
  assert.ok(one && two && next);
  const said: (Error | undefined)[] = [];
  const mine = await open(two, said);
  const { url } = await serverOf(await open(one));
  const forwarder = new Forwarder({ tls: mine });
  owned.push(() => forwarder.close());
  const subject = async (): Promise<string> => {
    const question = { method: "GET", path: "/", headers: [] };
    return (await forwarder.ask({ id: "x", url }, question, () => "", AbortSignal.timeout(5_000))).body.toString();
  };
  assert.equal(await subject(), "CN=two");
  // One after the other, as whatever renews them does it.
  await rename(next.certificate, two.certificate);
  await mine.look();
  await mine.look();
  assert.equal(said.length, 1, "said once");
  assert.ok(said[0] instanceof Error);
  assert.equal(await subject(), "CN=two");
  // A file that is being written is empty for a moment.
  const whole = await readFile(two.certificate);
  await rename(next.key, two.key);
  await writeFile(two.certificate, "");
  await mine.look();
  assert.ok(said[1] instanceof Error);
  assert.equal(await subject(), "CN=two");
  await writeFile(two.certificate, whole);
  await mine.look();
  assert.deepEqual([said.length, said[2]], [3, undefined]);
  assert.equal(await subject(), "CN=next");
  // A server's, too.
  const theirs = await open(one);
  const other = await serverOf(theirs);
  await authority(dir.path, "new");
  const moved = await certificate(dir.path, "new", "moved");
  for (const name of ["certificate", "key", "ca"] as const) await writeFile(one[name], await readFile(moved[name]));
  await theirs.look();
  await assert.rejects(ask(mine, other.url), "it shows a certificate of another authority");
  assert.equal(await ask(await open(moved), other.url), "CN=moved");
  await assert.rejects(open({ ...two, key: "/nonexistent" }), { code: "invalid", message: /nonexistent/ });
});
