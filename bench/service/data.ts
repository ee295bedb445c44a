/**
 * Bytes through the server beside the same bytes by the agent's channel alone, in turns: a file in and out, a command's output, a page of a
 * program in the guest. And a gibibyte up and down, with what the server's memory grows by.
 */
import { Buffer } from "node:buffer";
import { request } from "node:http";
import { Readable } from "node:stream";
import type { Agent } from "../../src/guest/agent.ts";
import type { BenchDaemon } from "../daemon.ts";
import { residentMiB } from "./monitors.ts";
import { type Bench, type Created, sleep } from "./part.ts";

const MIB = 2 ** 20;
const SIZE = 64 * MIB;
const TEXT_BYTES = 22_500_000;
const PORT = 8_080;
/** Between two looks at the server's memory. */
const LOOK_MS = 50;
const CHUNK = Buffer.alloc(256 * 1_024, "stacyvm");

export async function data(bench: Bench): Promise<void> {
  if (!bench.side.linux) return; // the bare guest has no files
  const rounds = bench.option("data", 5);
  await using server = await bench.serve(4);
  await using direct = await bench.direct();
  const spawn = { ...bench.side.spawn, disk_mb: 2_048 };
  await server.ok("POST", "/snapshots", spawn);
  const { id } = JSON.parse(await server.ok("POST", "/sandboxes", spawn)) as Created;
  const path = `/api/v1/sandboxes/${id}`;
  const url = (rest: string): string => `${server.url}${path}${rest}`;
  const file = `/files?path=${encodeURIComponent("/tmp/file")}`;
  const shell = `head -c ${TEXT_BYTES} /dev/urandom | base64 > /tmp/text; busybox httpd -p ${PORT} -h /tmp`;
  await server.ok("POST", `/sandboxes/${id}/exec`, { command: shell });
  await direct.agent.exec({ argv: ["sh", "-c", shell] });
  const cat = { argv: ["cat", "/tmp/text"] };
  const ways: Record<string, { size: number; http(): Promise<unknown>; direct(): Promise<unknown> }> = {
    "file-in": {
      size: SIZE,
      http: () => transfer("PUT", url(file), SIZE),
      direct: () => direct.agent.writeFile("/tmp/file", chunks(SIZE)),
    },
    "file-out": {
      size: SIZE,
      http: async () => expect(await transfer("GET", url(file)), SIZE),
      direct: async () => expect(await drained((await direct.agent.readStream("/tmp/file")).stream), SIZE),
    },
    output: {
      size: (TEXT_BYTES * 4) / 3,
      http: () => server.ok("POST", `/sandboxes/${id}/exec`, { command: "cat", args: ["/tmp/text"] }),
      direct: () => direct.agent.exec(cat),
    },
    preview: {
      size: SIZE,
      http: async () => expect(await transfer("GET", url(`/ports/${PORT}/file`)), SIZE),
      direct: async () => expect(await page(direct.agent), SIZE),
    },
  };
  bench.progress(`data, n = ${rounds}`);
  for (let i = -1; i < rounds; i++) {
    for (const [name, way] of Object.entries(ways)) {
      const rate: Record<string, number> = {};
      for (const side of i % 2 === 0 ? (["http", "direct"] as const) : (["direct", "http"] as const)) {
        bench.context.signal.throwIfAborted();
        const begun = performance.now();
        try {
          await way[side]();
        } catch (error) {
          bench.failure(`data.${name}.${side}`, error);
          continue;
        }
        rate[side] = way.size / 1e3 / (performance.now() - begun);
        if (i >= 0) bench.sample(`data.${name}.${side}`, rate[side], "MB/s");
      }
      if (i >= 0 && rate.http && rate.direct) bench.sample(`data.${name}.share`, (rate.http / rate.direct) * 100, "%");
    }
  }
  const size = bench.option("large", 1_024) * MIB;
  if (size > 0) await large(bench, server, url, size);
  await server.ok("DELETE", `/sandboxes/${id}`);
}

async function large(bench: Bench, { pid }: BenchDaemon, url: (rest: string) => string, size: number): Promise<void> {
  bench.progress("a gibibyte up and down");
  const at = url(`/files?path=${encodeURIComponent("/root/large")}`);
  await grown(bench, "data.large-in", size, pid, () => transfer("PUT", at, size));
  await grown(bench, "data.large-out", size, pid, async () => expect(await transfer("GET", at), size));
}

/** A rate, and what the server's memory grows by at most meanwhile. */
async function grown(
  bench: Bench,
  name: string,
  size: number,
  pid: number,
  work: () => Promise<unknown>,
): Promise<void> {
  const before = await residentMiB(pid);
  let [most, over] = [before, false];
  const looking = (async () => {
    for (; !over; await sleep(LOOK_MS)) most = Math.max(most, await residentMiB(pid));
  })();
  const taken = await bench.timed(name, work);
  over = true;
  await looking;
  if (taken === undefined) return;
  bench.sample(`${name}.rate`, size / 1e3 / taken.ms, "MB/s");
  bench.sample(`${name}.grown`, most - before, "MiB");
}

async function* chunks(size: number): AsyncGenerator<Buffer> {
  for (let left = size; left > 0; left -= CHUNK.length) yield CHUNK.subarray(0, Math.min(left, CHUNK.length));
}

/** @param size of the body that is sent @returns bytes of the answer */
function transfer(method: string, url: string, size?: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const length = size === undefined ? {} : { "content-length": size, "content-type": "application/octet-stream" };
    const outgoing = request(url, { method, headers: length, agent: false }, (response) => {
      drained(response).then((bytes) => {
        if ((response.statusCode ?? 0) < 300) resolve(bytes);
        else reject(new Error(`${method} ${url}: ${response.statusCode}`));
      }, reject);
    });
    outgoing.on("error", reject);
    if (size === undefined) outgoing.end();
    else Readable.from(chunks(size), { objectMode: false }).on("error", reject).pipe(outgoing);
  });
}

/** The same page by a connection through the channel. */
async function page(agent: Agent): Promise<number> {
  const tunnel = await agent.tunnel(PORT);
  tunnel.write("GET /file HTTP/1.0\r\n\r\n");
  let head = "";
  let bytes = 0;
  for await (const part of tunnel as AsyncIterable<Buffer>) {
    if (head.includes("\r\n\r\n")) bytes += part.length;
    else {
      head += part.toString("latin1");
      const at = head.indexOf("\r\n\r\n");
      if (at >= 0) bytes += head.length - at - 4;
    }
  }
  return bytes;
}

async function drained(stream: AsyncIterable<Uint8Array>): Promise<number> {
  let bytes = 0;
  for await (const part of stream) bytes += part.length;
  return bytes;
}

function expect(bytes: number, size: number): void {
  if (bytes !== size) throw new Error(`${bytes} bytes came of ${size}`);
}
