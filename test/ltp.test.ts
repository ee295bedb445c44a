/**
 * The Linux Test Project's tests of system calls (https://github.com/linux-test-project/ltp) in a restored sandbox. A long form of some
 * hours: `STACYVM_LTP` names a tree that LTP's own `make install` made, with the prefix /opt/ltp. What does not pass is named, with its
 * reason, in ltp-known.ts. `STACYVM_LTP_ONLY` is a pattern for names of tests; `STACYVM_LTP_OUT` names a file for all that they said.
 */
import assert from "node:assert/strict";
import { appendFile, cp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { sandboxId } from "../bench/spawning.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import type { SandboxMachine } from "../src/providers/provider.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { scratchPaths } from "./launcher-support.ts";
import { knownReason } from "./ltp-known.ts";
import { unpackPackages } from "./package-tree.ts";

const installed = process.env.STACYVM_LTP ?? "";
const only = new RegExp(process.env.STACYVM_LTP_ONLY ?? "");
const skip = installed === "" ? "STACYVM_LTP=<a tree of LTP's `make install`> runs it: some hours" : false;

/** What programs of the tests ask for. */
const PACKAGES = [
  "libacl1",
  "libaio1",
  "libssl3",
  "libcap2",
  "libkeyutils1",
  "acl",
  "attr",
  "e2fsprogs",
  "procps",
  "kmod",
];
/** As many to one machine: what a test leaves behind, or breaks, is no matter of all that come later. */
const AT_ONCE = 60;
/** Seconds that a test may take under emulation. */
const MOST_S = 90;
/** LTP's: a test that does not apply to this kernel, or asks for a device, leaves with this one. */
const NOT_APPLICABLE = 32;

const RUN = `export LTPROOT=/opt/ltp PATH=/opt/ltp/testcases/bin:$PATH TMPDIR=/tmp LTP_TIMEOUT_MUL=3 LTP_COLORIZE_OUTPUT=n KCONFIG_SKIP_CHECK=1
cd /tmp
while read -r name command; do
  timeout -k 5 ${MOST_S} bash -c "$command" > /dev/shm/said 2>&1 < /dev/null; code=$?
  echo "=== $name $code"
  [ $code = 0 ] || tail -c 20000 /dev/shm/said | grep -aE "TFAIL|TBROK|TCONF|TWARN|timed out" | head -12 | cut -c1-300
done`;

interface Result {
  name: string;
  code: number;
  said: string;
}

let paths: Awaited<ReturnType<typeof scratchPaths>>;

before(async () => {
  if (skip !== false) return;
  const shared = await scratchPaths();
  paths = { ...shared, images: join(shared.root, "images") };
  const tree = join(shared.root, "tree");
  await unpackPackages(tree, PACKAGES);
  await cp(installed, join(tree, "opt/ltp"), { recursive: true, verbatimSymlinks: true });
  await createImages(paths).import(tree, "test/ltp");
});
after(() => (skip === false ? rm(paths.root, { recursive: true, force: true }) : undefined));

async function results(machine: SandboxMachine, lines: string[]): Promise<Result[]> {
  const command = await machine.agent.start({
    argv: ["/bin/bash", "-c", RUN],
    stdin: Buffer.from(`${lines.join("\n")}\n`),
  });
  let said = "";
  for await (const event of command.output()) {
    if (!("data" in event)) continue;
    said += event.data;
    if (process.env.STACYVM_LTP_OUT) await appendFile(process.env.STACYVM_LTP_OUT, event.data);
  }
  return said.split(/^=== /m).flatMap((part) => {
    const [, name, code] = /^(\S+) (\d+)\n/.exec(part) ?? [];
    return name === undefined ? [] : [{ name, code: Number(code), said: part }];
  });
}

test("LTP's tests of system calls", { skip }, async (t) => {
  const listed = (await readFile(join(installed, "runtest/syscalls"), "utf8")).split("\n");
  const lines = listed.filter((line) => /^[^#\s]/.test(line) && only.test(line.split(/\s/)[0] ?? ""));
  const provider = createMicrovmProvider({ vmm: createQemu(), images: createImages(paths), paths });
  const spec = { image: "test/ltp", memoryMiB: 1024, vcpus: 2, diskMiB: 4096, env: {}, setup: [] };
  const all: Result[] = [];
  try {
    for (let at = 0; at < lines.length; at += AT_ONCE) {
      const part = lines.slice(at, at + AT_ONCE);
      const machine = await provider.spawn({ id: sandboxId(), ...spec });
      all.push(...(await results(machine, part).finally(() => machine.destroy())));
      t.diagnostic(`${at + part.length} of ${lines.length}`);
    }
  } finally {
    await provider.close();
  }
  const failed = all.filter(({ code }) => code !== 0 && code !== NOT_APPLICABLE);
  const known = failed.filter((each) => knownReason(each) !== undefined);
  const passed = all.filter(({ code }) => code === 0).length;
  const apply = all.filter(({ code }) => code !== NOT_APPLICABLE).length;
  t.diagnostic(`${all.length} tests: ${passed} passed of ${apply} that apply, ${known.length} known not to`);
  for (const each of known) t.diagnostic(`${each.name}: ${knownReason(each)}`);
  assert.deepEqual(
    failed.filter((each) => !known.includes(each)).map(({ said }) => said),
    [],
  );
  const ran = new Set(all.map(({ name }) => name));
  assert.deepEqual(
    lines.map((line) => line.split(/\s/)[0]).filter((name) => !ran.has(name ?? "")),
    [],
    "never ended",
  );
});
