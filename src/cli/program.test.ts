import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import type { Command } from "commander";
import { packageRoot } from "../host/paths.ts";
import { createProgram } from "./program.ts";

function* all(command: Command, path: string): Generator<[string, Command]> {
  yield [path, command];
  for (const each of command.commands) yield* all(each, `${path} ${each.name()}`);
}

test("the help of every command says what it does and explains every option", () => {
  for (const [path, command] of all(createProgram(), "stacyvm")) {
    assert.ok(command.description().length > 0, `${path} has no description`);
    for (const { long, description } of command.options)
      assert.ok(description.length > 0, `${path} ${long} is not explained`);
  }
});

for (const width of [60, 80, 200]) {
  test(`help fits ${width} columns, the notes below the options too`, () => {
    for (const [path, command] of all(createProgram(), "stacyvm")) {
      let text = "";
      command.configureOutput({
        getOutHelpWidth: () => width,
        writeOut: (words) => {
          text += words;
        },
      });
      command.outputHelp();
      assert.match(text, /^Usage: /);
      // One line that cannot be broken: the command with its arguments.
      for (const line of text.split("\n").filter((line) => !line.startsWith("Usage:")))
        assert.ok(line.length <= width, `${path} --help: ${line}`);
      if (width === 200) assert.ok(text.split("\n").length < 110, `${path} uses the width`);
    }
  });
}

test("no command waits for the libraries of the server, which it may not need", async () => {
  const program = new URL("program.ts", import.meta.url).href;
  const script = `
    import { registerHooks } from "node:module";
    const seen = new Set();
    registerHooks({
      resolve(name, context, next) {
        const found = next(name, context);
        seen.add(/.*node_modules\\/((@[^/]+\\/)?[^/]+)/.exec(found.url)?.[1]);
        return found;
      },
    });
    (await import(${JSON.stringify(program)})).createProgram();
    console.log([...seen].filter(Boolean).sort().join());`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script]);
  assert.match(stdout, /commander/);
  assert.doesNotMatch(stdout, /hono|pino|prom-client|yaml|zod/);
});

test("Node takes no option from among the arguments, and no .env of the directory: both are the guest's", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-env-"));
  try {
    await writeFile(join(dir, ".env"), "NODE_OPTIONS=--require=./nothing.cjs\n");
    for (const option of ["--env-file=missing", "--env-file=.env", "--env-file-if-exists=.env"]) {
      const ran = promisify(execFile)(join(packageRoot, "bin/stacyvm"), ["version", option], { cwd: dir });
      // It reaches our own parser, which does not know it; Node would end with 9, or run what the file says.
      await assert.rejects(ran, { code: 2, stderr: /^error: unknown option '--env-file/ });
    }
    const shebang = (await readFile(join(packageRoot, "src/cli/main.ts"), "utf8")).split("\n", 1)[0];
    assert.equal(shebang, "#!/usr/bin/env -S node --", "the installed package starts by this line");
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test("wrong usage is JSON where JSON was asked for, and words where only the guest's command has --json", async () => {
  const usage = async (...words: string[]): Promise<string> => {
    const ran = promisify(execFile)(join(packageRoot, "bin/stacyvm"), words);
    const error = await ran.then(
      () => assert.fail("it is wrong"),
      (cause: { code: number; stderr: string }) => cause,
    );
    assert.equal(error.code, 2);
    return error.stderr;
  };
  const { error } = JSON.parse(await usage("run", "--json", "--mount", "a:b", "image"));
  assert.equal(error.code, "usage");
  assert.equal(error.message, "unknown option '--mount'");
  assert.match(error.hint, /^-v NAME:.*; see `stacyvm run --help`$/);
  assert.match(
    await usage("run", "--mount", "a:b", "image", "--", "--json"),
    /^error: unknown option '--mount'\nhint: -v NAME/,
  );
  assert.match(await usage("forward", "sb-1"), /^error: name a port, or one of the server's host with -R\n/);
  assert.match(await usage("forward", "sb-1", "-R", "0"), /write a port, 1 to 65535/);
});
