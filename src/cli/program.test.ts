import assert from "node:assert/strict";
import { test } from "node:test";
import type { Command } from "commander";
import { createProgram } from "./program.ts";

function* all(command: Command, path: string): Generator<[string, Command]> {
  yield [path, command];
  for (const each of command.commands) yield* all(each, `${path} ${each.name()}`);
}

test("the help of every command says what it does, explains every option, and fits 80 columns", () => {
  for (const [path, command] of all(createProgram(), "stacyvm")) {
    assert.ok(command.description().length > 0, `${path} has no description`);
    for (const { long, description } of command.options)
      assert.ok(description.length > 0, `${path} ${long} is not explained`);
    const lines = command
      .configureOutput({ getOutHelpWidth: () => 80 })
      .helpInformation()
      .split("\n");
    for (const line of lines) assert.ok(line.length <= 80, `${path} --help: ${line}`);
  }
});
