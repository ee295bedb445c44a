/** Templates' set-up commands: run in a fresh machine before it is saved, or before its caller gets it. */
import { type Network, networkEnvironment } from "../egress/network.ts";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import type { LaunchSpec } from "./target.ts";

/** One command's limit. */
const LIMIT_MS = 30 * 60_000;

/** Runs them in order, with the network that they may have. @throws StacyError `invalid` with the last lines of the one that failed */
export async function runSetup(
  agent: Agent,
  { setup, setupEnv, setupHosts = [] }: LaunchSpec,
  network: Network,
  signal?: AbortSignal,
): Promise<void> {
  if (setup.length === 0) return;
  const egress = network.egress(setupHosts, agent);
  egress.start();
  try {
    for (const command of setup) {
      const { exitCode, stdout, stderr } = await agent.exec({
        argv: ["sh", "-c", command],
        timeoutMs: LIMIT_MS,
        ...(setupHosts.length === 0 ? {} : { env: networkEnvironment(setupHosts, setupEnv) }),
        ...(signal === undefined ? {} : { signal }),
      });
      if (exitCode === 0) continue;
      const name = command.length > 200 ? `${command.slice(0, 200)}...` : command;
      const words = `${stdout.toString("utf8")}${stderr.toString("utf8")}`.trim().split("\n").slice(-5).join("\n");
      throw new StacyError("invalid", `the set-up command "${name}" ended with ${exitCode}: ${words}`, {
        phase: "setup",
        remedy: "correct the template's setup commands",
      });
    }
  } finally {
    egress.stop();
  }
}
