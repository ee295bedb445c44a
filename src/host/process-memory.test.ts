import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryOf, processMemory } from "./process-memory.ts";

/** A monitor of QEMU whose guest has 1 GiB, after a fork of it: it has read all of the file that it was loaded from. */
const FORKED = `00400000-7ffc3a5f6000 ---p 00000000 00:00 0                              [rollup]
Rss:             1101824 kB
Pss:             1089536 kB
Pss_Dirty:         31744 kB
Shared_Clean:      21504 kB
Shared_Dirty:          0 kB
Private_Clean:   1047552 kB
Private_Dirty:     31744 kB
Anonymous:         31744 kB
Swap:                  0 kB
`;

test("the memory of a process is what it has written: page cache that it alone has mapped is the host's, which may take it back", () => {
  assert.deepEqual(memoryOf(FORKED), { privateBytes: 31_744 * 1024, pssBytes: (1_089_536 - 1_047_552) * 1024 });
  // The same of a file that was just written, and of which 128 MiB are not on disk yet.
  const fresh = FORKED.replace(/Private_Clean: +\d+/, "Private_Clean: 916480").replace(
    /Private_Dirty: +\d+/,
    "Private_Dirty: 162816",
  );
  assert.deepEqual(memoryOf(fresh), memoryOf(FORKED));
  assert.deepEqual(memoryOf(""), { privateBytes: 0, pssBytes: 0 }, "a process that is gone");
});

test("this process has memory of its own, and its share is no less", async () => {
  const { privateBytes, pssBytes } = await processMemory(process.pid);
  assert.ok(privateBytes > 2 ** 20 && pssBytes >= privateBytes, `${privateBytes} ${pssBytes}`);
});
