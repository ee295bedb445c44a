/** What runs in a machine before it is saved. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Network } from "../egress/network.ts";
import type { Agent } from "../guest/agent.ts";
import { runSetup } from "./setup.ts";

test("contexts alone have no network, since the machine that is saved with them is everybody's who asks for them", async () => {
  const seen: (readonly string[])[] = [];
  class Seen extends Network {
    override egress(...[hosts, agent]: Parameters<Network["egress"]>): ReturnType<Network["egress"]> {
      seen.push(hosts);
      return super.egress([], agent);
    }
  }
  const fail = async (): Promise<never> => {
    throw new Error("nothing runs here");
  };
  const agent = { writeFile: fail, start: fail, exec: fail } as unknown as Agent;
  const spec = { image: "i", vcpus: 1, memoryMiB: 64, diskMiB: 16, setupEnv: {}, setupHosts: ["a.example"] };
  const contexts = [{ language: "python" as const, code: "1" }];
  for (const setup of [[], ["true"]]) {
    await assert.rejects(runSetup(agent, { ...spec, setup, contexts }, new Seen()), /nothing runs here/);
  }
  assert.deepEqual(seen, [[], ["a.example"]]);
});

test("the wait for a start command to be ready is told from the work before and after it", async () => {
  const seen: string[] = [];
  let asked = 0;
  const started = {
    exited: new Promise(() => {}),
    async *output() {},
    detach: async () => void seen.push("detached"),
  };
  const agent = {
    start: async () => {
      seen.push("started");
      return started;
    },
    exec: async () => {
      seen.push("asked");
      return { exitCode: asked++ === 0 ? 1 : 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
    },
  } as unknown as Agent;
  const spec = { image: "i", vcpus: 1, memoryMiB: 64, diskMiB: 16, setup: [], setupEnv: {} };
  const start = { command: "serve", ready: "is it", env: {} };
  await runSetup(agent, { ...spec, start }, new Network(), undefined, async (wait) => {
    seen.push("rests");
    const waited = await wait();
    seen.push("works");
    return waited;
  });
  assert.deepEqual(seen, ["started", "rests", "asked", "asked", "works", "detached"]);
});
