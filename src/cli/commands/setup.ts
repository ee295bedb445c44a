import { mkdir } from "node:fs/promises";
import { Command } from "commander";
import { dataPaths } from "../../host/paths.ts";
import { buildAgent } from "../../images/agent-build.ts";
import { buildBareGuest } from "../../images/bare-guest.ts";
import { findKernel, installKernel } from "../../images/kernel.ts";
import { installFirecracker } from "../../vmm/firecracker/install.ts";
import { ProgressLine } from "../progress-line.ts";

const PARTS = ["kernel", "agent", "firecracker", "bare"] as const;

/** `stacyvm setup`: everything besides system packages. Each part is left alone when it is there. */
export function setupCommand(): Command {
  return new Command("setup")
    .description("fetch the guest kernel, compile the agent, install Firecracker; safe to repeat")
    .argument("[parts...]", `only these: ${PARTS.join(", ")}`)
    .action(async (only: string[]) => {
      const { assets } = dataPaths();
      await mkdir(assets, { recursive: true });
      const wanted = (part: (typeof PARTS)[number]): boolean => only.length === 0 || only.includes(part);
      if (wanted("kernel")) {
        await step("guest kernel", async (progress) => {
          const present = await findKernel(assets);
          const kernel = present ?? (await installKernel(assets, { progress }));
          return `${kernel.release}${present === undefined ? "" : " (present)"}`;
        });
      }
      if (wanted("agent")) await step("guest agent", (progress) => buildAgent(assets, { progress }));
      if (wanted("firecracker")) {
        await step("Firecracker", async (progress) => {
          const found = await installFirecracker(assets, { progress });
          return `${found.version}${found.notes.length === 0 ? "" : `; ${found.notes.join("; ")}`}`;
        });
      }
      if (wanted("bare"))
        await step("bare guest", async () => ((await buildBareGuest(assets)).built ? "built" : "present"));
    });
}

async function step(name: string, work: (progress: ProgressLine["show"]) => Promise<string>): Promise<void> {
  const start = performance.now();
  let result: string;
  {
    using line = new ProgressLine(`  ${name}: `);
    result = await work(line.show);
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  process.stderr.write(`  ${name.padEnd(14)} ${result} (${seconds} s)\n`);
}
