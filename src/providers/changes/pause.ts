/** It stands still in memory, and goes on: U1 to U2 and R1 to R3 of docs/crash-protocol.md. */
import { StacyError } from "../../host/error.ts";
import type { MachineLife } from "../machine-life.ts";
import { wake } from "./suspend.ts";

export async function pause(life: MachineLife): Promise<void> {
  // One that is shown as paused may run: a copy was made of it, or a resume failed, and it could not be stopped again.
  if (life.now.state === "paused") return;
  const machine = life.running();
  if (!life.context.launcher.vmm.abilities.pauseResume) {
    throw new StacyError("not-supported", "this version of the machine monitor cannot pause safely", {
      remedy: "use suspend, or another version (see `stacyvm doctor`)",
    });
  }
  const paused = await machine.pause(); // U1
  life.become({ state: "paused", machine: paused });
  try {
    await life.recordFile.write("paused"); // U2
  } catch (error) {
    await life.goOn(paused, true);
    throw error;
  }
}

/** From `paused` and from `suspended`. */
export async function resume(life: MachineLife, signal: AbortSignal): Promise<void> {
  const { now } = life;
  if (now.state === "running") return;
  if (now.state === "suspended") return wake(life, signal);
  if (now.state === "exited") throw life.gone();
  // Running again already when an earlier attempt got no further than that.
  const machine = now.state === "returning" ? now.machine : await now.machine.resume(); // R1
  life.become({ state: "returning", from: "paused", machine });
  try {
    await life.identify(); // R2: its clock stood still
    await life.recordFile.write("running"); // R3
    life.become({ state: "running", machine });
  } catch (error) {
    if (life.now.state === "returning") {
      const paused = await machine.pause().catch(() => undefined);
      if (paused !== undefined && life.now.state === "returning") life.settle({ state: "paused", machine: paused });
      await life.recordFile.correct("paused");
    }
    throw error;
  }
  life.startTraffic();
}
