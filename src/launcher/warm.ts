/** One machine that waits for a caller: restored, exercised, and stopped where the VMM can stop it safely. */
import { rename } from "node:fs/promises";
import type { Agent, Identity } from "../guest/agent.ts";
import { STALE_CLOCK_MS } from "../guest/client.ts";
import { exerciseArgv } from "../guest/exercise.ts";
import { StacyError } from "../host/error.ts";
import type { Phases } from "../host/phases.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type { PausedMachine, RunningMachine, Vmm } from "../vmm/vmm.ts";
import { discard, type Started } from "./launch.ts";

/** Runs of a first command's code paths before the stop: under emulation each is translated on its first use. */
const EXERCISES = 3;
const CLAIM_LIMIT_MS = 5_000;

export class WarmMachine {
  readonly bornAt: number;
  readonly machine: RunningMachine | PausedMachine;
  readonly agent: Agent;

  private constructor(machine: RunningMachine | PausedMachine, agent: Agent, bornAt: number) {
    this.machine = machine;
    this.agent = agent;
    this.bornAt = bornAt;
  }

  /** Takes a machine without an identity and makes it ready. @param now ms, for its age */
  static async ready(vmm: Vmm, started: Started, now: number): Promise<WarmMachine> {
    const { machine, agent } = started;
    for (let i = 0; i < EXERCISES; i++) {
      await exercise(agent);
    }
    const waiting = vmm.abilities.pauseResume ? await machine.pause() : machine;
    return new WarmMachine(waiting, agent, now);
  }

  get dir(): string {
    return this.machine.dir;
  }

  /** Gives it to a caller: its directory gets the sandbox's name, and only now it becomes an individual. */
  async claim(dir: string, identity: Identity, phases: Phases): Promise<Started> {
    return phases.phase("claim", async () => {
      // None of the three needs another: what is said to a guest that stands still waits in its channel, and is read when it goes on.
      const resuming = this.machine.state === "paused" ? this.machine.resume() : this.machine;
      const begun = performance.now();
      const told = this.agent.identify(identity);
      told.catch(() => {}); // heard below, unless another of them fails
      const moving = this.#move(dir);
      try {
        const [machine] = await Promise.all([resuming, moving]);
        await withLimit(told);
        // It was told the time at which it was asked to go on.
        if (performance.now() - begun > STALE_CLOCK_MS) await withLimit(this.agent.identify(identity));
        return { machine, agent: this.agent };
      } catch (error) {
        await moving.catch(() => {}); // whoever gives it up must know where it is
        throw error;
      }
    });
  }

  async #move(dir: string): Promise<void> {
    await rename(this.machine.dir, dir);
    this.machine.relocate(dir);
  }

  /** Ends it and removes its directory. Never rejects. */
  async discard(): Promise<void> {
    await this.agent.close();
    await discard(this.dir, this.machine);
  }
}

/** Runs what a first command costs, the way that it goes: through the channel, and inside the guest. */
export async function exercise(agent: Agent): Promise<void> {
  await agent.ping();
  if (agent.hello.guest !== "linux") return;
  await agent.exercise();
  await agent.exec({ argv: exerciseArgv("sh") }).catch((error) => {
    if (!(error instanceof StacyError) || error.code !== "not-found") throw error;
    throw new StacyError(error.code, `no directory of the image's PATH has a shell: ${error.message}`, {
      cause: error,
      remedy: "where the image sets PATH, end it with `:$PATH`, or name /bin in it",
    });
  });
}

function withLimit(work: Promise<unknown>): Promise<unknown> {
  const late = (): StacyError => new StacyError("timeout", `a warm machine did not answer within ${CLAIM_LIMIT_MS} ms`);
  return withTimeLimit(work, CLAIM_LIMIT_MS, late);
}
