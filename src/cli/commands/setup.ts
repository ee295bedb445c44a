import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Argument, Command } from "commander";
import { asStacyError } from "../../host/error.ts";
import { dataPaths, packageRoot } from "../../host/paths.ts";
import { assertTrusted } from "../data-dir.ts";
import { interruptible } from "../interrupt.ts";
import { note, printJson } from "../output.ts";
import { ProgressLine } from "../progress-line.ts";

const PARTS = ["kernel", "interpreted-kernel", "agent", "spawner", "directory", "firecracker", "bare"] as const;
type Part = (typeof PARTS)[number];

interface Done {
  part: Part;
  result: string;
  seconds: number;
}

/** `stacyvm setup`: everything besides system packages. Each part is left alone when it is there. */
export function setupCommand(): Command {
  return new Command("setup")
    .description("fetch the guest kernel, compile the agent and its helpers, install Firecracker; safe to repeat")
    .addArgument(new Argument("[parts...]", "only these").choices(PARTS))
    .option("--json", "print what was done as JSON")
    .action(async (only: Part[], options: { json?: boolean }) => {
      const paths = dataPaths();
      const { assets } = paths;
      await assertTrusted(paths);
      await mkdir(assets, { recursive: true });
      const done: Done[] = [];
      // The published package has no sources of the bare guest, which only tests and benchmarks of Firecracker use.
      const all = PARTS.filter((part) => part !== "bare" || existsSync(join(packageRoot, "guests")));
      // Minutes of compiling, which nobody else needs: QEMU runs Linux guests there as well.
      if (!(await wantsInterpretedKernel())) all.splice(all.indexOf("interpreted-kernel"), 1);
      await interruptible(async (signal) => {
        for (const part of PARTS) {
          if (only.length === 0 ? all.includes(part) : only.includes(part))
            done.push(await step(part, assets, { signal, optional: only.length === 0 }));
        }
      });
      if (options.json === true) printJson(done);
    });
}

/** Set-up for tests, on a host whose KVM interprets ring 0. */
async function wantsInterpretedKernel(): Promise<boolean> {
  if (process.env.STACYVM_SETUP !== "tests") return false;
  const { kvmState } = await import("../../host/kvm.ts");
  return (await kvmState()).mode === "interpreted";
}

const TITLES: Record<Part, string> = {
  kernel: "guest kernel",
  "interpreted-kernel": "kernel for interpreted KVM",
  agent: "guest agent",
  spawner: "spawner",
  directory: "directories",
  firecracker: "Firecracker",
  bare: "bare guest",
};

interface How {
  signal: AbortSignal;
  /** Nobody asked for this part by name. */
  optional: boolean;
}

type Work = (assets: string, progress: ProgressLine["show"], how: How) => Promise<string>;

const WORK: Record<Part, Work> = {
  async kernel(assets, progress, { signal }) {
    const { findKernel, installKernel } = await import("../../images/kernel.ts");
    const before = await findKernel(assets);
    const kernel = await installKernel(assets, { progress, signal });
    return `${kernel.release}${before?.wanted.join() === kernel.wanted.join() ? " (present)" : ""}`;
  },
  async "interpreted-kernel"(assets, progress, { signal, optional }) {
    const { installInterpretedKernel } = await import("../../images/interpreted-kernel.ts");
    try {
      const { kernel, result } = await installInterpretedKernel(assets, { progress, signal });
      return `${kernel.release} (${result})`;
    } catch (thrown) {
      // Tests do without it, and say so; whoever asked for it by name is told why not.
      if (!optional || signal.aborted) throw thrown;
      return `left out, and with it the tests of Linux under Firecracker: ${asStacyError(thrown).message}`;
    }
  },
  async agent(assets, progress, { signal }) {
    const { buildAgent } = await import("../../images/crate-build.ts");
    const built = await buildAgent(assets, { progress, signal });
    const { cellState } = await import("../../vmm/cell.ts");
    const cell = await cellState().catch((error: unknown) => ({ usable: false, reason: asStacyError(error).message }));
    return "cell" in cell ? built : `${built}; QEMU without a cell: ${cell.reason}`;
  },
  async spawner(assets, progress, { signal }) {
    const { buildSpawner } = await import("../../images/crate-build.ts");
    return buildSpawner(assets, { progress, signal });
  },
  async directory(assets, progress, { signal }) {
    const { buildDirectoryHelper } = await import("../../images/crate-build.ts");
    return buildDirectoryHelper(assets, { progress, signal });
  },
  async firecracker(assets, progress, { signal }) {
    const { installFirecracker } = await import("../../vmm/firecracker/install.ts");
    const found = await installFirecracker(assets, { progress, signal });
    return `${found.version}${found.notes.length === 0 ? "" : `; ${found.notes.join("; ")}`}`;
  },
  async bare(assets) {
    const { buildBareGuest } = await import("../../images/bare-guest.ts");
    return (await buildBareGuest(assets)).built ? "built" : "present";
  },
};

async function step(part: Part, assets: string, how: How): Promise<Done> {
  const start = performance.now();
  let result: string;
  {
    using line = new ProgressLine(`  ${TITLES[part]}: `);
    result = await WORK[part](assets, line.show, how);
  }
  const seconds = Math.round((performance.now() - start) / 100) / 10;
  note(`  ${TITLES[part].padEnd(14)} ${result} (${seconds.toFixed(1)} s)`);
  return { part, result, seconds };
}
