import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { isThere } from "../host/exists.ts";
import { Phases } from "../host/phases.ts";
import type { PausedMachine, RunningMachine, Vmm } from "../vmm/vmm.ts";
import { exercise, WarmMachine } from "./warm.ts";

test("an image whose PATH has no shell is told so, with what to do", async () => {
  const missing = new StacyError("not-found", "sh: No such file or directory");
  const agent = {
    ...{ hello: { guest: "linux" }, ping: async () => {}, exercise: async () => {} },
    exec: async () => Promise.reject(missing),
  } as unknown as Agent;
  await assert.rejects(exercise(agent), { code: "not-found", message: /image's PATH has a shell/, remedy: /:\$PATH/ });
  const lost = new StacyError("unavailable", "its connection is gone");
  await assert.rejects(
    exercise({ ...agent, exec: async () => Promise.reject(lost) } as unknown as Agent),
    (error) => error === lost,
  );
});

/** One that waits in `dir`, stopped. */
async function waiting(
  dir: string,
  agent: Partial<Agent>,
  resume: () => Promise<RunningMachine>,
): Promise<WarmMachine> {
  const paused = {
    ...{ state: "paused", dir, resume },
    relocate(this: { dir: string }, to: string) {
      this.dir = to;
    },
  } as unknown as PausedMachine;
  const machine = { pause: async () => paused } as unknown as RunningMachine;
  const whole = { hello: { guest: "bare" }, ping: async () => {}, ...agent } as unknown as Agent;
  const vmm = { abilities: { pauseResume: true } } as Vmm;
  return WarmMachine.ready(vmm, { machine, agent: whole }, 0);
}

const identity = {} as Parameters<WarmMachine["claim"]>[1];

test("a claim tells a machine that stands still who it is, and does not wait for it to go on first", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "warm-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  await mkdir(join(root, "pool-1"));
  const told = Promise.withResolvers<void>();
  const running = {} as RunningMachine;
  const identify = async (): Promise<never> => {
    told.resolve();
    return undefined as never;
  };
  const warm = await waiting(join(root, "pool-1"), { identify }, () => told.promise.then(() => running));
  const { machine } = await warm.claim(join(root, "sb-1"), identity, new Phases());
  assert.equal(machine, running);
  assert.equal(warm.dir, join(root, "sb-1"));
  assert.equal(await isThere(join(root, "sb-1")), true);
});

test("a machine that took its time to go on is told the time again", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "warm-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  for (const [afterMs, times] of [
    [0, 1],
    [400, 2],
  ] as const) {
    await mkdir(join(root, `pool-${times}`));
    let told = 0;
    const identify = async (): Promise<never> => {
      told += 1;
      return undefined as never;
    };
    const warm = await waiting(join(root, `pool-${times}`), { identify }, () => delay(afterMs, {} as RunningMachine));
    await warm.claim(join(root, `sb-${times}`), identity, new Phases());
    assert.equal(told, times);
  }
});

test("a claim that fails knows where its machine is, however early it failed", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "warm-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  for (const [at, fails] of ["resume", "identify"].entries()) {
    const [from, to] = [join(root, `pool-${at}`), join(root, `sb-${at}`)];
    await mkdir(from);
    const step = (name: string) => async (): Promise<never> => {
      if (name === fails) throw new StacyError("machine-exited", `no ${name}`);
      return {} as never;
    };
    const warm = await waiting(from, { identify: step("identify") }, step("resume"));
    await assert.rejects(warm.claim(to, identity, new Phases()), { message: `no ${fails}` });
    assert.equal(warm.dir, to);
    assert.equal(await isThere(to), true);
  }
});
