/** What a volume costs a restore: machines with none, one and two of them, in turns. `--n=N` rounds under Firecracker, a fifth under QEMU. */
import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { createEngine } from "../src/cli/engine.ts";
import type { Launched } from "../src/launcher/launcher.ts";
import { formatVolume } from "../src/volumes/format.ts";
import type { BenchContext, Suite } from "./harness.ts";
import { benchSpec, remove, sandboxId } from "./spawning.ts";

const COUNTS = [0, 1, 2];
const VOLUME_BYTES = 256 * 2 ** 20;

export const suite: Suite = {
  name: "volumes",
  about: "restores with no volume, one and two",
  async run(context) {
    const rounds = Number(/--n=(\d+)/.exec(context.args.join(" "))?.[1] ?? 100);
    context.guest = "linux";
    for (const [provider, image, n] of [
      ["firecracker", "stacyvm/bare", rounds],
      ["qemu", "stacyvm/busybox", Math.ceil(rounds / 5)],
    ] as const)
      await measure(context, provider, image, n);
  },
};

async function measure(
  context: BenchContext,
  provider: "firecracker" | "qemu",
  image: string,
  rounds: number,
): Promise<void> {
  const { launcher } = await createEngine({ provider });
  const { vmm, paths } = launcher;
  const probe = await vmm.probe();
  if (!probe.usable) {
    context.note(`${provider} cannot be used: ${probe.reason}`);
    return launcher.close();
  }
  context.versions[provider] = `${probe.version}, ${probe.accelerator}`;
  await mkdir(paths.tmp, { recursive: true });
  const dir = await mkdtemp(join(paths.tmp, "bench-volumes-"));
  try {
    const files = await Promise.all(COUNTS.slice(1).map((count) => makeVolume(join(dir, `${count}.ext4`))));
    const specs = COUNTS.map((count) =>
      benchSpec(image, count === 0 ? {} : { slots: files.slice(0, count).map(() => "write" as const) }),
    );
    for (const spec of specs) await launcher.ensureGolden(await launcher.targets.resolve(spec));
    for (let round = 0; round < rounds && !context.signal.aborted; round++) {
      for (const [count, spec] of specs.entries()) {
        const volumes = files.slice(0, count);
        const begun = performance.now();
        const launched = await launcher.launch(spec, {
          id: sandboxId(),
          mode: "restore",
          ...(count === 0 ? {} : { volumes }),
        });
        const total = performance.now() - begun;
        try {
          if (launched.boot.path !== "restored") throw new Error(`it was ${launched.boot.path}`);
          context.sample(`${provider}.restore.total.volumes-${count}`, total, "ms");
          if (launched.boot.guest === "linux" && count > 0)
            context.sample(
              `${provider}.mount.volumes-${count}`,
              await mount(launched, count, provider === "qemu"),
              "ms",
            );
        } finally {
          await remove(launched);
        }
      }
    }
  } finally {
    await launcher.close();
    await rm(dir, { recursive: true });
  }
}

/** All of them. @returns ms */
async function mount(launched: Launched, count: number, probe: boolean): Promise<number> {
  const begun = performance.now();
  for (let slot = 0; slot < count; slot++) {
    const name = `volume-${slot}`;
    await launched.agent.mount({ name, slot, bytes: VOLUME_BYTES, path: `/${name}`, readOnly: false, probe });
  }
  const took = performance.now() - begun;
  await launched.agent.still();
  return took;
}

async function makeVolume(path: string): Promise<string> {
  await using file = await open(path, "wx", 0o600);
  await file.truncate(VOLUME_BYTES);
  await formatVolume(path);
  return path;
}
