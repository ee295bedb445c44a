/** What is done while a call fails: how each operation is prepared, done, and done again. */
import assert from "node:assert/strict";
import type { World } from "./world.ts";

export interface Operation {
  name: string;
  /** Not counted, and nothing fails in it. @returns the sandbox it is done to, or what else it needs */
  prepare(world: World): Promise<string>;
  work(world: World, of: string): Promise<void>;
  /** From a sandbox that runs back to where `prepare` left it. */
  again?(world: World, of: string): Promise<unknown>;
  /** After success, and after a failed attempt was repeated: what was made must be there. */
  holds(world: World, of: string): Promise<void>;
}

/** Also when a daemon that starts could not reach it at once: it asks again after a second. */
export async function worksSoon(world: World, of: string): Promise<void> {
  const until = performance.now() + 60_000;
  for (;;) {
    try {
      return await world.echo(of, "works");
    } catch (error) {
      if (performance.now() > until) throw error;
      await new Promise((wake) => setTimeout(wake, 50));
    }
  }
}

const works = (world: World, of: string): Promise<void> => world.echo(of, "works");
const spawned = (world: World): Promise<string> => world.spawn();

/** Spawns made by `work`, by what they were asked for with. */
let last = "";

export const OPERATIONS: readonly Operation[] = [
  {
    name: "spawn",
    prepare: async () => "",
    work: async (world) => {
      last = await world.spawn();
    },
    holds: (world) => works(world, last),
  },
  { name: "exec", prepare: spawned, work: works, holds: works },
  {
    name: "write",
    prepare: spawned,
    work: (world, of) => world.write(of, "written"),
    holds: async (world, of) => assert.equal(await world.read(of), "written"),
  },
  {
    name: "fork",
    prepare: spawned,
    work: async (world, of) => {
      const { sandboxes } = await world.sandboxes.fork(of, { count: 1 });
      last = sandboxes[0]?.id ?? "";
    },
    holds: async (world, of) => {
      await works(world, of);
      await works(world, last);
    },
  },
  {
    name: "checkpoint",
    prepare: spawned,
    work: async (world, of) => {
      last = (await world.sandboxes.checkpoint(of)).id;
    },
    holds: async (world, of) => {
      await works(world, of);
      const copy = await world.sandboxes.spawn({ checkpoint: last });
      await works(world, copy.id);
      await world.sandboxes.destroy(copy.id);
    },
  },
  {
    name: "restore",
    prepare: async (world) => {
      const id = await world.spawn();
      await world.sandboxes.checkpoint(id);
      return id;
    },
    again: async (world, of) => {
      if (world.sandboxes.checkpoints.list(of).length === 0) await world.sandboxes.checkpoint(of);
    },
    work: async (world, of) => {
      await world.sandboxes.restore(of, world.sandboxes.checkpoints.list(of)[0]?.id ?? "");
    },
    holds: works,
  },
  {
    // Of a checkpoint that a machine runs from.
    name: "forget",
    prepare: async (world) => {
      const id = await world.spawn();
      const { id: checkpoint } = await world.sandboxes.checkpoint(id);
      last = (await world.sandboxes.spawn({ checkpoint })).id;
      return id;
    },
    again: async (world, of) => {
      if (world.sandboxes.checkpoints.list(of).length === 0) await world.sandboxes.checkpoint(of);
    },
    work: async (world, of) => {
      for (const { id } of world.sandboxes.checkpoints.list(of)) await world.sandboxes.checkpoints.remove(id);
    },
    holds: async (world, of) => {
      assert.deepEqual(world.sandboxes.checkpoints.list(of), []);
      await works(world, last);
    },
  },
  {
    name: "suspend",
    prepare: spawned,
    work: async (world, of) => void (await world.sandboxes.suspend(of)),
    holds: async (world, of) => {
      await world.sandboxes.resume(of);
      await works(world, of);
    },
  },
  {
    name: "wake",
    prepare: async (world) => {
      const id = await world.spawn();
      await world.sandboxes.suspend(id);
      return id;
    },
    again: (world, of) => world.sandboxes.suspend(of),
    work: async (world, of) => void (await world.sandboxes.resume(of)),
    holds: works,
  },
  {
    name: "pause",
    prepare: spawned,
    work: async (world, of) => void (await world.sandboxes.pause(of)),
    holds: async (world, of) => {
      await world.sandboxes.resume(of);
      await works(world, of);
    },
  },
  {
    name: "resume",
    prepare: async (world) => {
      const id = await world.spawn();
      await world.sandboxes.pause(id);
      return id;
    },
    again: (world, of) => world.sandboxes.pause(of),
    work: async (world, of) => void (await world.sandboxes.resume(of)),
    holds: works,
  },
  {
    name: "destroy",
    prepare: spawned,
    work: (world, of) => world.sandboxes.destroy(of),
    holds: async (world, of) => {
      if (world.sandboxes.list().some(({ id }) => id === of)) throw new Error(`${of} is still there`);
    },
  },
  {
    name: "build",
    prepare: async (world) => {
      // What a start could not read keeps every snapshot until the next start.
      await world.close();
      await world.open();
      // The one that all spawns come from: removed, so that it is built again.
      for (const { id } of world.sandboxes.list()) await world.sandboxes.destroy(id);
      for (const key of await world.snapshots()) await world.removeSnapshot(key);
      return "";
    },
    work: async (world) => void (await world.sandboxes.buildSnapshot(world.spec, new AbortController().signal)),
    holds: async (world) => {
      last = await world.spawn();
      await works(world, last);
    },
  },
  {
    name: "adopt",
    prepare: async (world) => {
      const id = await world.spawn();
      await world.close();
      return id;
    },
    again: (world) => world.close(),
    work: (world) => world.open(),
    holds: worksSoon,
  },
];
