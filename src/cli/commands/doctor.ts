import { access, constants, mkdir, stat, statfs } from "node:fs/promises";
import { Command } from "commander";
import { asStacyError } from "../../host/error.ts";
import { kvmState } from "../../host/kvm.ts";
import { dataPaths } from "../../host/paths.ts";
import { canReflink } from "../../host/sparse.ts";
import { agentPath } from "../../images/guest-files.ts";
import { findKernel } from "../../images/kernel.ts";
import { vmms } from "../engine.ts";

interface Finding {
  name: string;
  state: "ok" | "note" | "missing";
  detail: string;
  remedy?: string;
}

const LOW_SPACE_BYTES = 2 * 2 ** 30;

/** `stacyvm doctor`: every prerequisite with its state, its meaning and its remedy. Exit 0 when a sandbox can start. */
export function doctorCommand(): Command {
  return new Command("doctor")
    .description("check what this host has and say what is missing")
    .option("--json", "for programs")
    .action(async (options: { json?: boolean }) => {
      const findings = await examine();
      const ready = findings.every((finding) => finding.state !== "missing");
      if (options.json === true) process.stdout.write(`${JSON.stringify({ ready, findings }, null, 2)}\n`);
      else {
        const marks = { ok: "✓", note: "•", missing: "✗" };
        for (const { name, state, detail, remedy } of findings) {
          process.stdout.write(`${marks[state]} ${name.padEnd(14)} ${detail}\n`);
          if (remedy !== undefined) process.stdout.write(`  ${"".padEnd(14)} remedy: ${remedy}\n`);
        }
        process.stdout.write(ready ? "\nA sandbox can start.\n" : "\nA sandbox cannot start yet.\n");
      }
      process.exitCode = ready ? 0 : 1;
    });
}

async function examine(): Promise<Finding[]> {
  const paths = dataPaths();
  const findings: Finding[] = [];
  try {
    const kvm = await kvmState();
    findings.push({
      name: "KVM",
      state: kvm.linux ? "ok" : "note",
      detail: kvm.linux ? `runs Linux guests: ${kvm.reason}` : kvm.reason,
      ...(kvm.remedy === undefined ? {} : { remedy: kvm.remedy }),
    });
  } catch (thrown) {
    const error = asStacyError(thrown);
    findings.push({
      name: "KVM",
      state: "missing",
      detail: error.message,
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    });
  }
  let linux = false;
  for (const vmm of Object.values(vmms(paths))) {
    const probe = await vmm.probe();
    if (probe.usable) {
      if (probe.guests.includes("linux")) linux = true;
      findings.push({
        name: vmm.name === "qemu" ? "QEMU" : "Firecracker",
        state: "ok",
        detail: [
          `${probe.version} (${probe.path}), ${probe.accelerator}, guests: ${probe.guests.join(", ") || "none"}`,
          ...probe.notes,
        ].join("; "),
      });
    } else {
      findings.push({
        name: vmm.name === "qemu" ? "QEMU" : "Firecracker",
        state: "note",
        detail: probe.reason,
        remedy: probe.remedy,
      });
    }
  }
  if (!linux) {
    findings.push({
      name: "machine monitor",
      state: "missing",
      detail: "none can run Linux guests",
      remedy: "run `make setup`, which installs QEMU",
    });
  }
  const kernel = await findKernel(paths.assets);
  findings.push(
    kernel === undefined
      ? { name: "guest kernel", state: "missing", detail: "not there", remedy: "run `stacyvm setup kernel`" }
      : { name: "guest kernel", state: "ok", detail: kernel.release },
  );
  const agent = agentPath(paths.assets);
  const size = await stat(agent).then(
    ({ size }) => size,
    () => undefined,
  );
  findings.push(
    size === undefined
      ? { name: "guest agent", state: "missing", detail: "not there", remedy: "run `stacyvm setup agent`" }
      : { name: "guest agent", state: "ok", detail: `${agent}, ${(size / 2 ** 20).toFixed(2)} MiB` },
  );
  findings.push(await dataDirectory(paths.root));
  return findings;
}

async function dataDirectory(root: string): Promise<Finding> {
  const name = "data directory";
  try {
    await mkdir(root, { recursive: true });
    await access(root, constants.W_OK);
    const { bavail, bsize } = await statfs(root);
    const free = bavail * bsize;
    const reflink = (await canReflink(root)) ? "reflinks" : "no reflinks: disks are copied by extents";
    const detail = `${root}, ${(free / 2 ** 30).toFixed(1)} GiB free, ${reflink}`;
    if (free < LOW_SPACE_BYTES)
      return { name, state: "note", detail, remedy: "free some space: a snapshot takes what its guest touched" };
    return { name, state: "ok", detail };
  } catch (thrown) {
    return {
      name,
      state: "missing",
      detail: `${root}: ${asStacyError(thrown).message}`,
      remedy: "set STACYVM_DATA_DIR to a directory you may write to",
    };
  }
}
