import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { tar } from "../../test/images-support.ts";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { readTar } from "../images/tar.ts";
import { BuildContext } from "./context.ts";
import { type CopyStep, copyInto } from "./copy.ts";

test("a copy sends files with their contents: named ones, those that links lead to, those of a directory, unpacked ones", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "copy-"));
  t.after(() => rm(dir, { recursive: true }));
  async function* archive(): AsyncGenerator<Buffer> {
    yield tar([
      { path: "a", content: "first" },
      { path: "link", type: "2", link: "d/b" },
      { path: "d/b", content: "second" },
      { path: "packed.tgz", content: gzipSync(tar([{ path: "inner", content: "third" }])) },
    ]);
  }
  await using context = await BuildContext.ofTar(archive(), join(dir, "store"));
  const came: Record<string, string> = {};
  const agent = {
    stat: () => Promise.reject(new StacyError("not-found", "there is no such file")),
    tarIn: (path: string, sent: AsyncIterable<Uint8Array>) =>
      readTar(sent, async (entry, body) => {
        assert.equal(entry.uid, 0);
        came[join(path, entry.path)] = Buffer.concat(await Array.fromAsync(body)).toString();
      }),
  } as unknown as Agent;
  const copy = (sources: string[], to: string, more: Partial<CopyStep> = {}): Promise<void> =>
    copyInto(
      { kind: "copy", sources, to, text: "", line: 1, ...more },
      { agent, files: context, cwd: "/", scratch: dir, signal: undefined },
    );
  await copy(["a", "link"], "/x/");
  await copy(["link"], "/renamed");
  await copy(["d"], "/tree/");
  await copy(["packed.tgz"], "/unpacked/", { unpack: true });
  assert.deepEqual(came, {
    "/x/a": "first",
    "/x/link": "second",
    "/renamed": "second",
    "/tree/b": "second",
    "/unpacked/inner": "third",
  });
});
