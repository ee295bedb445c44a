import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { judgeKvm, kvmState } from "./kvm.ts";
import { judgeAnswer, type KvmProbe, probeKvm } from "./kvm-probe.ts";

test("each kind of evidence has its verdict, and what to do is said of all but native ones", () => {
  const rows: [Parameters<typeof judgeKvm>[0], string, RegExp][] = [
    [{ module: "kvm_amd" }, "native", /kvm_amd is loaded/],
    [{ module: "kvm_pvm" }, "interpreted", /kvm_pvm is loaded/],
    [{ probe: { ring0: "native" } }, "native", /a probe ran/],
    [{ probe: { ring0: "interpreted" } }, "interpreted", /not what ordinary kernels use/],
    // A backend that shows itself counts, however far a few instructions get.
    [{ probe: { ring0: "native", backend: "PVM" } }, "interpreted", /register of PVM/],
    // What was tried counts more than what the CPU promises.
    [{ probe: { ring0: "none" }, flag: "vmx" }, "none", /did not run/],
    [{ flag: "svm" }, "native", /the CPU has svm/],
    [{}, "none", /nothing shows/],
  ];
  for (const [evidence, mode, reason] of rows) {
    const state = judgeKvm(evidence);
    assert.equal(state.mode, mode, JSON.stringify(evidence));
    assert.match(state.reason, reason);
    assert.equal(state.remedy === undefined, mode === "native", mode);
    if (mode === "interpreted") assert.match(state.remedy ?? "", /hardware virtualisation/);
  }
});

test("a register that answers everybody proves no backend; one that must read so does", () => {
  // How often the machine was heard, two backends' registers, and nobody's.
  assert.deepEqual(judgeAnswer("2\n-\n-\n-\n"), { ring0: "native" });
  assert.deepEqual(judgeAnswer("2\n-\n0\n-\n"), { ring0: "native", backend: "PVM" });
  assert.deepEqual(judgeAnswer("2\n0\n0\n0\n"), { ring0: "native" }, "kvm.ignore_msrs");
  assert.match(judgeAnswer(`1\n${0x4d5650}\n0\n0\n`).backend ?? "", /variant of PVM/);
  assert.deepEqual(judgeAnswer(""), { ring0: "none" });
});

test("the probe agrees with what the host's modules say, and is asked once per boot", async (t) => {
  const kvm = await kvmState();
  if (!kvm.device || process.env.STACYVM_ACCEL) return t.skip(`needs /dev/kvm, as it is: ${kvm.reason}`);
  const dir = await mkdtemp(join(tmpdir(), "kvm-probe-"));
  t.after(() => rm(dir, { recursive: true }));
  const probe = await probeKvm(dir);
  assert.ok(probe, "there is no python3");
  assert.equal(judgeKvm({ probe }).mode, kvm.mode);
  if (probe.ring0 === "none") return t.skip("nothing runs on this host's KVM, which is not kept");
  const kept = JSON.parse(await readFile(join(dir, "kvm.json"), "utf8"));
  // What is kept is believed, until the host boots again.
  const other: KvmProbe = { ring0: "native", backend: "another" };
  await writeFile(join(dir, "kvm.json"), JSON.stringify({ ...kept, probe: other }));
  assert.deepEqual(await probeKvm(dir), other);
  await writeFile(join(dir, "kvm.json"), JSON.stringify({ ...kept, boot: "another", probe: other }));
  assert.deepEqual(await probeKvm(dir), probe);
  // That nothing ran once is asked again.
  await writeFile(join(dir, "kvm.json"), JSON.stringify({ ...kept, probe: { ring0: "none" } }));
  assert.deepEqual(await probeKvm(dir), probe);
});
