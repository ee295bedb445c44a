import assert from "node:assert/strict";
import { test } from "node:test";
import { DISK_BOUNDS } from "../host/bounds.ts";
import { parseManifest } from "./manifest.ts";

const SHA = "a".repeat(64);

function withExtents(extents: unknown): string {
  const about = { version: 1, key: SHA, kind: "checkpoint", image: "i", shape: { vmmIdentity: {} }, createdAt: 1 };
  return JSON.stringify({ ...about, files: { "rootfs.ext4": { size: 1 << 30, extents, sha256: SHA } } });
}

test("one of an earlier version, which wrote every extent down, is read, and few are kept", () => {
  const extents = Array.from({ length: 100_000 }, (_, i) => ({ start: i * 8192, length: 4096 }));
  const { extents: kept } = parseManifest(withExtents(extents)).files["rootfs.ext4"] ?? { extents: [] };
  assert.ok(kept.length > 0 && kept.length <= DISK_BOUNDS.extents, `${kept.length}`);
  assert.equal(kept[0]?.start, 0);
  const last = kept.at(-1);
  assert.equal((last?.start ?? 0) + (last?.length ?? 0), 99_999 * 8192 + 4096);
});

test("what is no list of extents, ascending and apart, is refused", () => {
  const good = { start: 4096, length: 4096 };
  parseManifest(withExtents([good, { start: 8192, length: 1 }]));
  for (const bad of [
    null,
    {},
    "",
    [null],
    [1],
    [{ start: 0 }],
    [{ start: -1, length: 1 }],
    [{ start: 0, length: 0 }],
    [{ start: 0.5, length: 1 }],
    [{ start: "0", length: 1 }],
    [good, good],
    [good, { start: 0, length: 1 }],
  ]) {
    assert.throws(() => parseManifest(withExtents(bad)), JSON.stringify(bad));
  }
});
