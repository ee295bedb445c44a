/** Forms of files, as clients send them and as they should not. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { setImmediate as later } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { StacyError } from "../../host/error.ts";
import type { E2bParts } from "../parts.ts";
import { eachPart, readFile, unpacked, writeFiles } from "./files.ts";
import type { Guest } from "./guest.ts";

const TYPE = "multipart/form-data; boundary=b";
const part = (name: string, content: string): string =>
  `--b\r\nContent-Disposition: form-data; name="file"; filename="${name}"\r\n\r\n${content}\r\n`;
async function* sent(...pieces: string[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) yield Buffer.from(piece);
}
async function textOf(content: AsyncIterable<Uint8Array>): Promise<string> {
  let text = "";
  for await (const piece of content) text += Buffer.from(piece).toString();
  return text;
}

test("the files of a form, in their order, a few at a time", async () => {
  let [now, most] = [0, 0];
  const files = Array.from({ length: 100 }, (_, i) => part(`f${i}`, i === 50 ? "x".repeat(300_000) : `content ${i}`));
  const seen = await eachPart(sent(files.join(""), "--b--\r\n"), TYPE, async (content, name) => {
    most = Math.max(most, ++now);
    await later();
    const text = await textOf(content);
    now -= 1;
    return `${name} ${text.length}`;
  });
  assert.deepEqual(
    seen,
    Array.from({ length: 100 }, (_, i) => `f${i} ${i === 50 ? 300_000 : `content ${i}`.length}`),
  );
  assert.ok(most > 1 && most <= 8, String(most));
});

test("a form that ends too early, or is none, is an error, also for who has begun to read or has yet to", async () => {
  for (const wait of [true, false]) {
    for (const pieces of [
      [part("a", "whole"), part("b", "half").slice(0, -4)],
      [`${part("a", "whole")}${part("b", "half").slice(0, -4)}`],
      [part("a", "half").slice(0, -4), "more"],
    ]) {
      const reads: Promise<string>[] = [];
      const form = eachPart(sent(...pieces), TYPE, async (content) => {
        if (wait) for (let i = 0; i < 20; i++) await later();
        const text = textOf(content);
        reads.push(text);
        return await text;
      });
      await assert.rejects(form, { code: "invalid" });
      for (let i = 0; i < 50; i++) await later();
      const ended = await Promise.race([Promise.allSettled(reads), later("one waits for ever", { ref: true })]);
      assert.ok(Array.isArray(ended) && ended.length > 0, String(ended));
    }
  }
  await assert.rejects(eachPart(sent("no form"), "multipart/form-data", textOf), { code: "invalid" });
  assert.deepEqual(await eachPart(sent("--b--\r\n"), TYPE, textOf), []);
});

test("a client that goes in the middle of a file: its reader ends, too", async () => {
  const gone = new Error("the client is gone");
  const read = Promise.withResolvers<unknown>();
  const form = eachPart(
    (async function* () {
      yield Buffer.from(part("a", "half").slice(0, -4));
      await later();
      throw gone;
    })(),
    TYPE,
    async (content) => {
      read.resolve(textOf(content).then(String, (error) => error));
      return "";
    },
  );
  await assert.rejects(form);
  assert.ok((await read.promise) instanceof Error);
});

test("a form has so many files and no more; one that fails ends it", async () => {
  const many = async function* (): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < 10_100; i++) yield Buffer.from(part(`f${i}`, ""));
    yield Buffer.from("--b--\r\n");
  };
  await assert.rejects(
    eachPart(many(), TYPE, async (content) => await textOf(content)),
    { code: "too-large" },
  );
  let begun = 0;
  const files = Array.from({ length: 50 }, (_, i) => part(`f${i}`, "x")).join("");
  await assert.rejects(
    eachPart(sent(files, "--b--\r\n"), TYPE, async () => {
      begun += 1;
      await later();
      throw new Error("no room");
    }),
    /no room/,
  );
  assert.ok(begun <= 8, String(begun));
});

test("gzip: what comes out has the limit, not what goes in; what is no gzip is an error of the client's", async () => {
  const whole = gzipSync(Buffer.alloc(2 << 20));
  assert.ok(whole.length < 4096);
  const all = (maxBytes: number, bytes: Uint8Array) => Array.fromAsync(unpacked([bytes] as never, "gzip", maxBytes));
  assert.equal(Buffer.concat(await all(2 << 20, whole)).length, 2 << 20);
  assert.equal(Buffer.concat(await all(0, whole)).length, 2 << 20);
  await assert.rejects(all((2 << 20) - 1, whole), { code: "too-large" });
  await assert.rejects(all(0, Buffer.from("plain text")), { code: "invalid" });
  await assert.rejects(all(0, whole.subarray(0, 100)), { code: "invalid" });
  await assert.rejects(Array.fromAsync(unpacked([whole] as never, "br", 0)), { code: "invalid" });
});

/** A guest that says of a file what it likes, and sends the pieces. */
function guestOf(size: number, ...pieces: string[]): Guest {
  const user = { name: "user", uid: 0, gid: 0, home: "/" };
  const agent = {
    stat: async () => ({ kind: "file", size, mtimeMs: 0, mode: 0o644 }),
    readStream: async () => ({ stream: Readable.from(sent(...pieces)) }),
  };
  return {
    userName: "user",
    users: async () => ({ find: () => user }),
    hold: () => () => {},
    agent,
  } as unknown as Guest;
}

test("of a file come as many bytes as were announced and none behind them, or the connection breaks: more would be the next answer", async () => {
  const ask = async (size: number, pieces: string[], headers: Record<string, string> = {}) => {
    const query = new URLSearchParams({ path: "/x" });
    return await readFile(guestOf(size, ...pieces), new Request("http://h/files", { headers }), query);
  };
  const whole = await ask(5, ["123", "45"]);
  assert.deepEqual([whole.headers.get("content-length"), await whole.text()], ["5", "12345"]);
  for (const headers of [{}, { range: "bytes=0-4" }]) {
    assert.equal(await (await ask(5, ["12345", "HTTP/1.1 200 OK\r\n\r\n"], headers)).text(), "12345");
  }
  for (const pieces of [["123456"], ["123", "4HTTP/1.1 200 OK\r\n\r\n"], ["1234"]]) {
    const answer = await ask(5, pieces);
    assert.equal(answer.headers.get("content-length"), "5");
    await assert.rejects(answer.text(), /than it had announced/, pieces.join());
    const part = await ask(9, pieces, { range: "bytes=2-6" });
    assert.deepEqual([part.status, part.headers.get("content-length")], [206, "5"]);
    await assert.rejects(part.text(), /than it had announced/, pieces.join());
  }
  // Of what has no size before it is read, as below /proc, none is announced.
  const unknown = await ask(0, ["content"]);
  assert.deepEqual([unknown.headers.get("content-length"), await unknown.text()], [null, "content"]);
});

test("a file is written where it is, and keeps its permissions: other names of it, and who has it open, see what is written", async () => {
  const written: unknown[] = [];
  const agentOf = (there: boolean) => ({
    stat: async (path: string) => {
      if (path === "/dir/x" && !there) throw new StacyError("not-found", "no such file");
      return { kind: path === "/dir/x" ? "file" : "directory", size: 3, mode: 0o4711 };
    },
    writeFile: async (path: string, content: AsyncIterable<Uint8Array>, options: object) => {
      written.push([path, await textOf(content), options]);
    },
  });
  const user = { name: "user", uid: 0, gid: 0, home: "/", own: true };
  const parts = { config: { server: { max_upload_bytes: 0, body_timeout: 1_000 } } } as unknown as E2bParts;
  for (const there of [true, false]) {
    const guest = { userName: "user", users: async () => ({ find: () => user }), agent: agentOf(there) };
    const headers = { "content-type": "application/octet-stream" };
    const request = new Request("http://h/files", { method: "POST", headers, body: "new" });
    await writeFiles(parts, guest as unknown as Guest, request, new URLSearchParams({ path: "/dir/x" }));
  }
  assert.deepEqual(written, [
    ["/dir/x", "new", { atomic: false }],
    ["/dir/x", "new", { atomic: false, mode: 0o644 }],
  ]);
});
