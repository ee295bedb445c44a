import assert from "node:assert/strict";
import { test } from "node:test";
import type { Sandbox } from "../../../sdk/src/index.ts";
import { fileResource, shownFile } from "./file-content.ts";

const { signal } = new AbortController();

/** A file of which the kernel says size 0, as of all in /proc and /dev. */
function madeUp(pull: (controller: ReadableStreamDefaultController<Uint8Array>) => void) {
  const cancelled = Promise.withResolvers<void>();
  const files = {
    stat: async (path: string) => ({ path, size: 0 }),
    readStream: async () => new ReadableStream<Uint8Array>({ pull, cancel: () => cancelled.resolve() }),
  };
  return { sandbox: { id: "sb-00000000", files } as unknown as Sandbox, cancelled: cancelled.promise };
}

test("a file without an end is refused, as a resource and as a file, and no longer read", async () => {
  for (const read of [
    (sandbox: Sandbox) => fileResource(sandbox, "/dev/zero", "stacyvm://sb-00000000/dev/zero", signal),
    (sandbox: Sandbox) => shownFile(sandbox, "/dev/zero", {}, signal),
  ]) {
    const { sandbox, cancelled } = madeUp((controller) => controller.enqueue(new Uint8Array(1 << 20)));
    await assert.rejects(
      read(sandbox),
      /^Error: \/dev\/zero is too large to be read at once: more than 5242880 bytes\nnext: /,
    );
    await cancelled;
  }
});

test("a file of size 0 is read for what it has, and an empty one is empty", async () => {
  for (const content of ["processor: 0\n", ""]) {
    const file = () =>
      madeUp((controller) => {
        if (content !== "") controller.enqueue(new TextEncoder().encode(content));
        controller.close();
      }).sandbox;
    assert.deepEqual(await shownFile(file(), "/proc/cpuinfo", {}, signal), [{ type: "text", text: content }]);
    const { contents } = await fileResource(file(), "/proc/cpuinfo", "stacyvm://x", signal);
    assert.deepEqual(contents, [{ uri: "stacyvm://x", mimeType: "text/plain", text: content }]);
  }
});
