import assert from "node:assert/strict";
import { test } from "node:test";
import type { Command } from "commander";
import { configSchema } from "../config/schema.ts";
import { DEFAULT_SIZE } from "../sandboxes/limits.ts";
import { createProgram } from "./program.ts";

test("every command that starts a sandbox leaves its size to one default, which its help names", () => {
  const program = createProgram();
  const find = (path: string): Command =>
    path
      .split(" ")
      .reduce((at, word) => at.commands.find((each) => each.name() === word) ?? assert.fail(path), program);
  for (const path of ["run", "spawn", "template create", "snapshot build", "mcp"]) {
    const options = find(path).options;
    const memory = options.find(({ long }) => long === "--memory");
    const vcpus = options.find(({ long }) => long === "--vcpus");
    assert.match(memory?.description ?? "", /\(default: 1g\)/, path);
    assert.match(vcpus?.description ?? "", /\(default: 1\)/, path);
    // What is not given is not sent: the template's size, or the server's, holds.
    assert.deepEqual([memory?.defaultValue, vcpus?.defaultValue], [undefined, undefined], path);
  }
  const { memory_mb, vcpus, disk_size_mb } = configSchema.parse({}).defaults;
  assert.deepEqual({ memoryMiB: memory_mb, vcpus, diskMiB: disk_size_mb }, DEFAULT_SIZE);
});
