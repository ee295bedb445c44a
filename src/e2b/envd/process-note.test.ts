import assert from "node:assert/strict";
import { test } from "node:test";
import { type Described, noteOf, readNote } from "./process-note.ts";

const described: Described = {
  config: { cmd: "/bin/bash", args: ["-l", "-c", "echo é"], envs: { A: "b" }, cwd: "/tmp" },
  ...{ tag: "own", pty: true, stdin: true },
};

test("what is noted of a process is found again", () => {
  assert.deepEqual(readNote(noteOf(described)), described);
  const { cwd: _cwd, ...config } = described.config;
  const bare = { ...described, config, tag: undefined };
  assert.deepEqual(readNote(noteOf(bare)), bare);
});

test("of one that is too long the environment is left out, and with too long arguments there is none", () => {
  const { config } = described;
  const long = { ...described, config: { ...config, envs: { A: "é".repeat(3_000) } } };
  assert.deepEqual(readNote(noteOf(long)), { ...long, config: { ...config, envs: {} } });
  assert.equal(noteOf({ ...described, config: { ...config, args: ["a".repeat(5_000)] } }), undefined);
});

test("what a guest has made of a note is none", () => {
  for (const note of [
    undefined,
    "",
    "{",
    "null",
    '{"e2b":{"cmd":1}}',
    '{"e2b":{"cmd":"a","args":[{}],"pty":true,"stdin":true}}',
    "[".repeat(4_000),
  ])
    assert.equal(readNote(note), undefined);
});
