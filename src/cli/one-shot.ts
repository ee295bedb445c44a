/**
 * One machine for one command, without a server: the launcher in this process. Unlike a sandbox it does not outlive us; should
 * we die, whoever starts next on the data directory removes it by its owner's name.
 */
import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import { join } from "node:path";
import { networkEnvironment } from "../egress/network.ts";
import type { Command } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { ownedName } from "../host/owned-name.ts";
import type { Progress } from "../images/image.ts";
import { sweepTemporary } from "../launcher/golden.ts";
import { type BootReport, Launcher } from "../launcher/launcher.ts";
import { removeMachineDir } from "../launcher/machine-dir.ts";
import { DEFAULT_OWNER } from "../sandboxes/owner.ts";
import { startRemedy } from "../sandboxes/start-remedy.ts";
import { createEngine } from "./engine.ts";
import { asStartFailure } from "./error-output.ts";
import { ensureGuest } from "./first-run.ts";
import { imageCommand } from "./image-command.ts";
import type { Conversation, TerminalSize } from "./terminal.ts";

export interface OneShot {
  image: string;
  /** Empty: what the image says. */
  argv: string[];
  /** Absent: by the configuration, like the other sizes. */
  vcpus?: number | undefined;
  memoryMiB?: number | undefined;
  diskMiB?: number | undefined;
  env: Record<string, string>;
  workdir?: string | undefined;
  user?: string | undefined;
  /** Hosts that it may connect to. */
  allow?: string[] | undefined;
  /** ms */
  timeoutMs?: number | undefined;
  stdin: boolean;
  pty?: TerminalSize | undefined;
  provider?: string | undefined;
  cold: boolean;
}

export interface Observer {
  signal: AbortSignal;
  progress(progress: Progress): void;
  /** The machine runs: of which size, which way it started, and how long each phase took; after a cold boot also what accelerates it. */
  started(boot: BootReport, size: { memoryMiB: number; vcpus: number }, accelerator?: string): void;
  /** The command has ended, and the golden snapshot is still being saved. */
  saving(): void;
}

/** @param work gets the running command; its result is what this returns once nothing of the machine is left */
export async function runOneShot<T>(
  shot: OneShot,
  observer: Observer,
  work: (command: Conversation) => Promise<T>,
): Promise<T> {
  const { signal } = observer;
  const engine = await createEngine(shot.provider === undefined ? {} : { provider: shot.provider });
  const { defaults } = engine;
  const size = {
    vcpus: shot.vcpus ?? defaults.vcpus,
    memoryMiB: shot.memoryMiB ?? defaults.memoryMiB,
    diskMiB: shot.diskMiB ?? defaults.diskMiB,
  };
  const hosts = engine.network.rules(shot.allow ?? engine.defaults.hosts).list;
  await sweepTemporary(engine.paths);
  await ensureGuest(engine.paths, signal);
  const scratch = join(engine.paths.tmp, await ownedName("run"));
  const launcher = new Launcher({
    vmm: engine.launcher.vmm,
    images: engine.images,
    paths: { ...engine.paths, sandboxes: scratch },
    network: engine.network,
  });
  try {
    await using machine = new AsyncDisposableStack();
    machine.defer(() => removeMachineDir(scratch));
    const launched = await launcher.launch(
      {
        image: shot.image,
        imageOwner: DEFAULT_OWNER,
        ...size,
        setup: [],
        setupEnv: {},
      },
      {
        id: `sb-${randomBytes(4).toString("hex")}`,
        env: networkEnvironment(hosts, shot.env),
        network: hosts.length > 0,
        signal,
        resolve: { progress: observer.progress, signal },
        ...(shot.cold ? { mode: "cold" as const } : {}),
      },
    );
    machine.defer(async () => {
      await launched.agent.close();
      await launched.machine.kill();
      launched.releaseSnapshot();
    });
    const egress = engine.network.egress(hosts, launched.agent);
    machine.defer(() => egress.stop());
    egress.start();
    const probe = launched.boot.path === "cold" ? await engine.launcher.vmm.probe() : undefined;
    observer.started(launched.boot, size, probe?.usable === true ? probe.accelerator : undefined);
    const { config } = launched.target.image;
    const asked = imageCommand(shot.image, shot.argv, config);
    const command = await launched.agent
      .start({
        ...asked,
        signal,
        ...(shot.stdin || shot.pty !== undefined ? { stdin: true } : {}),
        ...(shot.workdir === undefined ? {} : { cwd: shot.workdir }),
        ...(shot.user === undefined ? {} : { user: shot.user }),
        ...(shot.timeoutMs === undefined ? {} : { timeoutMs: shot.timeoutMs }),
        ...(shot.pty === undefined ? {} : { pty: shot.pty }),
      })
      .catch((error: unknown) => {
        const missing = error instanceof StacyError && error.code === "not-found";
        const told = missing
          ? new StacyError("not-found", error.message, {
              phase: "start",
              cause: error,
              remedy: startRemedy(asked.argv),
            })
          : error;
        throw asStartFailure(told);
      });
    return await work(conversationOf(command));
  } finally {
    if (signal.aborted) await launcher.close();
    else if (launcher.golden.building.size > 0) {
      observer.saving();
      const skip = (): void => void launcher.close();
      signal.addEventListener("abort", skip, { once: true });
      await launcher.settle();
      signal.removeEventListener("abort", skip);
    }
  }
}

function conversationOf(command: Command): Conversation {
  async function* output(): AsyncGenerator<{ stream: "stdout" | "stderr"; data: Uint8Array }> {
    for await (const event of command.output()) {
      if (event.type !== "lost") yield { stream: event.type, data: event.data };
    }
  }
  return {
    output: output(),
    exited: command.exited,
    write: (data) => command.write(data),
    closeStdin: () => command.closeStdin(),
    kill: (name) => command.kill(constants.signals[name]),
    resize: (rows, cols) => command.resize(rows, cols),
  };
}
