/**
 * The agent's channel in one Linux guest: round trips, commands per second, throughput in both directions and this process's
 * memory meanwhile, beside the channel itself without the protocol (a second virtio-serial port, plain `dd`).
 */
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEngine } from "../src/cli/engine.ts";
import type { Agent } from "../src/guest/agent.ts";
import { connectUnix } from "../src/host/unix-socket.ts";
import type { BenchContext, Suite } from "./harness.ts";
import { benchSpec, remove, sandboxId } from "./spawning.ts";

const IMAGE = "stacyvm/busybox";
const CHUNK = Buffer.alloc(65_536, "0123456789abcdef");
/** Goal of the issue: this share of the raw channel. */
const GOAL = 0.7;
/** Finds the second port inside the guest. */
const PORT = "P=$(basename $(dirname $(grep -lx raw /sys/class/virtio-ports/*/name)));";

export const suite: Suite = {
  name: "agent",
  about: "the agent's channel: round trips, commands per second, throughput, memory",
  async run(context) {
    const option = (name: string, fallback: number): number =>
      Number(new RegExp(`--${name}=(\\d+)`).exec(context.args.join(" "))?.[1] ?? fallback);
    const { launcher } = await createEngine();
    try {
      const probe = await launcher.vmm.probe();
      if (!probe.usable) throw new Error(probe.reason);
      context.guest = "linux";
      Object.assign(context.versions, { vmm: `${launcher.vmm.name} ${probe.version}`, accelerator: probe.accelerator });
      const launched = await launcher.launch(benchSpec(IMAGE), { id: sandboxId(), mode: "restore" });
      try {
        await roundTrips(context, launched.agent, option("n", 300));
      } finally {
        await remove(launched);
      }
    } finally {
      await launcher.close();
    }
    await withRawPort(async () => {
      const { launcher } = await createEngine({ provider: "qemu" });
      try {
        const spec = benchSpec(IMAGE, { memoryMiB: 512, vcpus: option("vcpus", 1) });
        const launched = await launcher.launch(spec, { id: sandboxId(), mode: "cold" });
        const raw = await connectUnix(launched.dir, "raw.sock", { timeoutMs: 10_000 });
        try {
          await throughput(context, launched.agent, raw, option("mib", 64) * 2 ** 20, option("rounds", 3));
        } finally {
          raw.destroy();
          await remove(launched);
        }
      } finally {
        await launcher.close();
      }
    });
  },
  render: ({ results }) =>
    ["in", "out"].flatMap((way) => {
      const ceiling = results[`raw.${way}`]?.p50;
      if (ceiling === undefined) return [];
      return (way === "in" ? ["file.in", "stdin"] : ["file.out", "stdout"]).map((name) => {
        const figure = results[name]?.p50 ?? 0;
        const share = figure / ceiling;
        const bound = results[`raw.${way}.${name.startsWith("file") ? "file" : "pipe"}`]?.p50;
        const percent = (value: number): string => `${(value * 100).toFixed(0).padStart(4)} %`;
        return [
          `${name.padEnd(8)} ${percent(share)} of the raw channel${share < GOAL ? ` (below the goal of ${GOAL * 100} %)` : ""}`,
          ...(bound === undefined
            ? []
            : [`; ${percent(figure / bound)} of dd over the same ${name.startsWith("file") ? "file" : "pipe"}`]),
        ].join("");
      });
    }),
};

/** A QEMU whose machines have a second port, for a machine that is booted cold: no snapshot fits it. */
async function withRawPort(work: () => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "bench-agent-"));
  const before = process.env.STACYVM_QEMU;
  const wrapper = join(dir, "qemu");
  const port = "-chardev socket,id=raw,path=raw.sock,server=on,wait=off -device virtserialport,chardev=raw,name=raw";
  const qemu = before ?? "qemu-system-x86_64";
  await writeFile(wrapper, `#!/bin/sh\n[ "$1" = --version ] && exec ${qemu} --version\nexec ${qemu} "$@" ${port}\n`, {
    mode: 0o755,
  });
  process.env.STACYVM_QEMU = wrapper;
  try {
    await work();
  } finally {
    if (before === undefined) delete process.env.STACYVM_QEMU;
    else process.env.STACYVM_QEMU = before;
    await rm(dir, { recursive: true, force: true });
  }
}

async function roundTrips(context: BenchContext, agent: Agent, runs: number): Promise<void> {
  const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
    context.signal.throwIfAborted();
    await work().catch((error) => context.failure(what, error));
  };
  const before = (await agent.info()).minorFaults;
  await agent.ping();
  context.sample("first-ping.minor-faults", (await agent.info()).minorFaults - before, "faults");
  context.note(
    "first-ping.minor-faults: the first ping after the restored machine's handshake, with the `info` call that reads them",
  );
  context.progress(`${runs} pings and ${runs} times true`);
  for (let i = 0; i < runs; i++) await attempt("ping", () => timed(context, "ping", () => agent.ping()));
  for (let i = 0; i < runs; i++) await attempt("true", () => timed(context, "true", () => run(agent, ["true"])));
  for (const parallel of [1, 16]) {
    await attempt(`commands x${parallel}`, async () => {
      const start = performance.now();
      let left = runs;
      const worker = async () => {
        while (left-- > 0) await run(agent, ["true"]);
      };
      await Promise.all(Array.from({ length: parallel }, worker));
      context.sample(`commands.x${parallel}`, (runs * 1000) / (performance.now() - start), "per s");
    });
  }
}

async function throughput(
  context: BenchContext,
  agent: Agent,
  raw: Socket,
  bytes: number,
  rounds: number,
): Promise<void> {
  context.progress(`${rounds} rounds of ${bytes / 2 ** 20} MiB each way`);
  await run(agent, ["mkdir", "-p", "/dev/shm/bench"]);
  const file = "/dev/shm/bench/file";
  const count = bytes / CHUNK.length;
  for (let i = 0; i < rounds; i++) {
    context.signal.throwIfAborted();
    const moved = (name: string, work: () => Promise<void>) =>
      rate(context, name, bytes, work).catch((error) => context.failure(name, error));
    const rawIn = (script: string) => async () => {
      // Bytes for a port that is about to be closed are lost: nothing is sent before the reader says that it has it open.
      const reader = await agent.start({ argv: ["sh", "-c", `${PORT} exec 3</dev/$P; echo open; ${script}`] });
      const output = reader.output();
      await output.next();
      for (let sent = 0; sent < bytes; sent += CHUNK.length) if (!raw.write(CHUNK)) await once(raw, "drain");
      for await (const _ of output);
      const { exitCode } = await reader.exited;
      if (exitCode !== 0) throw new Error(`${script} ended with ${exitCode}`);
    };
    const rawOut = (script: string) => async () => {
      const all = new Promise<void>((resolve) => {
        let size = 0;
        const take = (chunk: Buffer) => {
          size += chunk.length;
          if (size < bytes) return;
          raw.removeListener("data", take);
          resolve();
        };
        raw.on("data", take);
      });
      await run(agent, ["sh", "-c", `${PORT} ${script}`]);
      await all;
    };
    // The ceiling, and what is left of it when the guest's kernel does what the agent must have it do: files, pipes.
    const block = `bs=65536 count=${count} iflag=fullblock`;
    await moved("raw.in", rawIn(`dd of=/dev/null ${block} <&3`));
    await moved("raw.in.file", rawIn(`dd of=${file} ${block} <&3`));
    await moved("raw.in.pipe", rawIn(`dd ${block} <&3 | dd of=/dev/null ${block}`));
    await run(agent, ["rm", file]);
    await moved("file.in", () => agent.writeFile(file, source(bytes)));
    await moved("stdin", async () => {
      const command = await agent.start({ argv: ["dd", "of=/dev/null", "bs=65536"], stdin: true });
      for await (const chunk of source(bytes)) await command.write(chunk);
      await command.closeStdin();
      for await (const _ of command.output());
      await command.exited;
    });
    await moved("raw.out", rawOut(`dd if=/dev/zero of=/dev/$P ${block}`));
    await moved("raw.out.file", rawOut(`dd if=${file} of=/dev/$P ${block}`));
    await moved("raw.out.pipe", rawOut(`dd if=/dev/zero ${block} | dd of=/dev/$P ${block}`));
    await moved("file.out", async () => {
      const { stream } = await agent.readStream(file);
      await drain(stream, bytes);
    });
    await run(agent, ["rm", file]);
    await moved("stdout", async () => {
      const command = await agent.start({ argv: ["dd", "if=/dev/zero", "bs=65536", `count=${count}`] });
      let size = 0;
      for await (const event of command.output()) if (event.type === "stdout") size += event.data.length;
      if (size !== bytes) throw new Error(`${size} bytes came, not ${bytes}`);
    });
  }
  context.note(
    "files are on tmpfs: what is measured is the channel; the raw channel is `dd` on a second virtio-serial port of the same machine",
  );
}

async function timed(context: BenchContext, name: string, work: () => Promise<void>): Promise<void> {
  const start = performance.now();
  await work();
  context.sample(name, performance.now() - start);
}

async function rate(context: BenchContext, name: string, bytes: number, work: () => Promise<void>): Promise<void> {
  const base = process.memoryUsage.rss();
  let peak = base;
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, 20);
  try {
    const start = performance.now();
    await work();
    context.sample(name, bytes / 1e6 / ((performance.now() - start) / 1000), "MB/s");
    context.sample(`${name}.host-memory`, (peak - base) / 2 ** 20, "MiB");
  } finally {
    clearInterval(watch);
  }
}

async function run(agent: Agent, argv: string[]): Promise<void> {
  const { exitCode, stderr } = await agent.exec({ argv });
  if (exitCode !== 0) throw new Error(`${argv.join(" ")} ended with ${exitCode}: ${stderr}`);
}

async function* source(bytes: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes; at += CHUNK.length) yield CHUNK;
}

async function drain(stream: AsyncIterable<Buffer>, bytes: number): Promise<void> {
  let size = 0;
  for await (const chunk of stream) size += chunk.length;
  if (size !== bytes) throw new Error(`${size} bytes came, not ${bytes}`);
}
