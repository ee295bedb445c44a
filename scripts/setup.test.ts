import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { packageRoot } from "../src/host/paths.ts";

test("what set-up says has colours on a terminal only: a log of it can be read", async () => {
  const lines = (await readFile(join(packageRoot, "scripts/setup.sh"), "utf8")).split("\n");
  const from = lines.findIndex((line) => line.startsWith("if [ -t 1 ]"));
  const script = [...lines.slice(from, from + 2), "say 'installing'"].join("\n");
  const { stdout } = await promisify(execFile)("sh", ["-euc", script]);
  assert.equal(stdout, "==> installing\n");
});

test("no script orders a terminal anything without having asked whether there is one", async () => {
  const script = await readFile(join(packageRoot, "scripts/setup.sh"), "utf8");
  for (const line of script.split("\n")) if (/\\033|\\e\[|tput/.test(line)) assert.match(line, /\[ -t [12] \]/, line);
});
