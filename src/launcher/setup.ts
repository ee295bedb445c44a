/**
 * What templates want of a fresh machine before it is saved, or before its caller gets it: set-up commands, a command that
 * stays, contexts of the code interpreter.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Network, networkEnvironment } from "../egress/network.ts";
import type { Agent, ExitStatus } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import type { Resting } from "../host/fair-queue.ts";
import { warmContexts } from "../interpreter/contexts.ts";
import type { LaunchSpec } from "./target.ts";

/** One command's limit. */
const LIMIT_MS = 30 * 60_000;

/** Between two questions whether what was started is ready. */
const READY_PAUSE_MS = 250;
const READY_LIMIT_MS = 10 * 60_000;
/** Of a start command that nothing says to be ready: whether it stays at all. */
const STAYS_MS = 2_000;
/** Its last output tells why it failed, and is in nobody's way. */
const START_LOG_BYTES = 64 * 1024;

export function needsSetup({ setup, start, contexts = [] }: LaunchSpec): boolean {
  return setup.length > 0 || start !== undefined || contexts.length > 0;
}

/**
 * All of it, in this order, with the network that it may have.
 * @param resting within it the start command becomes ready, which can take long and is no work of ours
 * @throws StacyError `invalid` with the last lines of what failed
 */
export async function runSetup(
  agent: Agent,
  spec: LaunchSpec,
  network: Network,
  signal?: AbortSignal,
  resting: Resting = (wait) => wait(),
): Promise<void> {
  if (!needsSetup(spec)) return;
  const { setupHosts = [], contexts = [] } = spec;
  // Contexts alone are one saved machine for all that ask for them, whatever each may connect to (target.ts): with nobody's network.
  const alone = spec.setup.length === 0 && spec.start === undefined;
  const egress = network.egress(alone ? [] : setupHosts, agent);
  egress.start();
  try {
    for (const command of spec.setup) await runCommand(agent, command, spec, signal);
    if (spec.start !== undefined) await startCommand(agent, spec.start, spec, resting, signal);
    await warmContexts(agent, contexts, signal);
  } finally {
    egress.stop();
  }
}

async function runCommand(agent: Agent, command: string, spec: LaunchSpec, signal?: AbortSignal): Promise<void> {
  const { setupHosts = [], setupEnv } = spec;
  const result = await agent.exec({
    argv: ["sh", "-c", command],
    timeoutMs: LIMIT_MS,
    ...(setupHosts.length === 0 ? {} : { env: networkEnvironment(setupHosts, setupEnv) }),
    ...(signal === undefined ? {} : { signal }),
  });
  if (result.exitCode !== 0) throw failed("set-up", command, result);
}

async function startCommand(
  agent: Agent,
  { command, ready, env }: NonNullable<LaunchSpec["start"]>,
  { setupHosts = [] }: LaunchSpec,
  resting: Resting,
  signal?: AbortSignal,
): Promise<void> {
  const own = { ...env, ...(setupHosts.length === 0 ? {} : networkEnvironment(setupHosts, env)) };
  const started = await agent.start({ argv: ["sh", "-c", command], env: own, ringBytes: START_LOG_BYTES });
  let ended: ExitStatus | undefined;
  void started.exited.then(
    (status) => {
      ended = status;
    },
    () => {},
  );
  let words = Buffer.alloc(0);
  const reading = (async () => {
    for await (const event of started.output()) {
      if (event.type !== "lost") words = Buffer.concat([words, event.data]).subarray(-START_LOG_BYTES);
    }
  })().catch(() => {});
  const begun = performance.now();
  await resting(async () => {
    for (;;) {
      signal?.throwIfAborted();
      // What it has started may be what stays.
      if (ended !== undefined && ended.exitCode !== 0) {
        await reading;
        throw failed("start", command, { exitCode: ended.exitCode, stdout: words, stderr: Buffer.alloc(0) });
      }
      const since = performance.now() - begun;
      if (ready === undefined) {
        if (ended !== undefined || since > STAYS_MS) break;
      } else {
        const asked = await agent.exec({ argv: ["sh", "-c", ready], env: own, timeoutMs: 60_000 });
        if (asked.exitCode === 0) break;
        if (since > READY_LIMIT_MS) throw failed("ready", ready, asked);
      }
      await sleep(READY_PAUSE_MS, undefined, signal === undefined ? {} : { signal });
    }
  });
  await started.detach();
}

function failed(
  kind: string,
  command: string,
  { exitCode, stdout, stderr }: { exitCode: number; stdout: Buffer; stderr: Buffer },
): StacyError {
  const words = `${stdout.toString("utf8")}${stderr.toString("utf8")}`.trim().split("\n").slice(-5).join("\n");
  const name = command.length > 200 ? `${command.slice(0, 200)}...` : command;
  return new StacyError("invalid", `the ${kind} command "${name}" ended with ${exitCode}: ${words}`, {
    phase: "setup",
    remedy: `correct the template's ${kind} command`,
  });
}
