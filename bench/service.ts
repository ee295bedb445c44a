/**
 * The service around the restore, by parts: what clients wait for over HTTP beside what the machine takes, storms, queues, memory and data,
 * on both monitors, and beside the goals. Each part has servers of its own and runs by itself. Every number of rounds is an option of
 * its part.
 *
 *     --only=PART,...      of `path`, `demand`, `storm`, `queue`, `memory`, `checkpoint`, `data`, and `idle`, which is left out unless named
 *     --monitor=NAME       `qemu` or `firecracker`; default both
 *     --n=N                rounds of `path` and `demand` (default 50)
 */
import { dataPaths } from "../src/host/paths.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { optionOf, type Suite } from "./harness.ts";
import { measurePath } from "./path.ts";
import { checkpoint } from "./service/checkpoint.ts";
import { data } from "./service/data.ts";
import { demand } from "./service/demand.ts";
import { goalTable } from "./service/goals.ts";
import { idle } from "./service/idle.ts";
import { memory } from "./service/memory.ts";
import { Bench, type Part, type Side } from "./service/part.ts";
import { queue } from "./service/queue.ts";
import { storm } from "./service/storm.ts";

const SIDES: readonly Side[] = [
  { monitor: "qemu", spawn: { image: "stacyvm/busybox", memory_mb: 256 }, linux: true },
  { monitor: "firecracker", spawn: { image: "stacyvm/bare", memory_mb: 256 }, linux: false },
];

const PARTS: Record<string, Part> = { demand, storm, queue, memory, checkpoint, data, idle };
const BY_NAME_ONLY = new Set(["idle"]);

export const suite: Suite = {
  name: "service",
  about: "what clients wait for over HTTP, storms, queues, memory and data, beside the goals",
  async run(context) {
    const only = optionOf(context.args, "only")?.split(",");
    const monitor = optionOf(context.args, "monitor");
    const wanted = (name: string): boolean => (only === undefined ? !BY_NAME_ONLY.has(name) : only.includes(name));
    if (wanted("path")) {
      const sides = monitor === undefined ? undefined : ["list", monitor];
      await measurePath(context, Number(optionOf(context.args, "n") ?? 50), sides);
    }
    for (const side of SIDES) {
      if (monitor !== undefined && monitor !== side.monitor) continue;
      const { assets } = dataPaths();
      const vmm = side.monitor === "qemu" ? createQemu() : createFirecracker({ assets });
      const probe = await vmm.probe();
      if (!probe.usable) {
        context.note(`${side.monitor} is left out: ${probe.reason}`);
        continue;
      }
      context.versions[side.monitor] = `${probe.version}, ${probe.accelerator}`;
      if (side.monitor === "firecracker") await buildBareGuest(assets);
      for (const [name, part] of Object.entries(PARTS)) {
        if (wanted(name)) await part(new Bench(context, side, vmm, name));
      }
    }
  },
  render: ({ results }) => goalTable(results),
};
