/** What users feel: from `POST /sandboxes` to the first command's output over HTTP, warm and on demand, and a storm. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { dataPaths } from "../src/host/paths.ts";
import { borrow } from "./borrow.ts";
import { type BenchDaemon, startDaemon } from "./daemon.ts";
import type { BenchContext } from "./harness.ts";

const STORM = 100;

export interface HttpSide {
  /** Of the results' names, for example `qemu.` */
  prefix: string;
  provider: string;
  image: string;
  memoryMiB: number;
}

export async function overHttp(context: BenchContext, side: HttpSide, n: number): Promise<void> {
  const root = join(dataPaths().tmp, `bench-http-${process.pid}`);
  await borrow(root);
  try {
    await using daemon = await startDaemon(root, STORM, {
      STACYVM_PROVIDER: side.provider,
      STACYVM_WARM_ADAPTIVE: "false",
    });
    await measure(context, side, daemon, n);
  } catch (error) {
    context.failure(`${side.prefix}http`, error);
  } finally {
    await rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

interface Answer {
  id: string;
  boot: { path: string };
}

async function measure(context: BenchContext, side: HttpSide, { ok }: BenchDaemon, n: number): Promise<void> {
  const spawn = { image: side.image, memory_mb: side.memoryMiB };
  const firstOutput = async (name: string, path: string): Promise<void> => {
    try {
      const begun = performance.now();
      const { id, boot } = JSON.parse(await ok("POST", "/sandboxes", spawn)) as Answer;
      context.sample(`${side.prefix}http.${name}.created`, performance.now() - begun);
      await ok("POST", `/sandboxes/${id}/exec`, { command: "echo", args: ["hello"] });
      context.sample(`${side.prefix}http.${name}.first-exec`, performance.now() - begun);
      if (boot.path !== path) context.failure(name, new Error(`it came ${boot.path}`));
      await ok("DELETE", `/sandboxes/${id}`);
    } catch (error) {
      context.failure(name, error);
    }
  };
  await ok("POST", "/snapshots", spawn);
  context.progress(`${side.prefix.slice(0, -1)}: over HTTP, n = ${n}`);
  for (let i = 0; i < n; i++) await firstOutput("restore", "restored");
  // A pool of the default size, pinned; each claim waits until it is full again, as in a server that is not busy.
  await ok("POST", "/templates", { ...spawn, name: "bench", pool_size: 2 });
  const filled = async (): Promise<void> => {
    while ((JSON.parse(await ok("GET", "/pool/status")) as { vms?: number }).vms !== 2) {
      await new Promise((wake) => setTimeout(wake, 20));
    }
  };
  for (let i = 0; i < n; i++) {
    await filled();
    await firstOutput("warm", "warm");
  }
  context.progress(`${side.prefix.slice(0, -1)}: a storm of ${STORM} over HTTP`);
  await filled();
  const begun = performance.now();
  await Promise.all(
    Array.from({ length: STORM }, async () => {
      try {
        const { id } = JSON.parse(await ok("POST", "/sandboxes", spawn)) as Answer;
        await ok("POST", `/sandboxes/${id}/exec`, { command: "echo", args: ["hello"] });
        context.sample(`${side.prefix}http.storm-${STORM}.each`, performance.now() - begun);
        await ok("DELETE", `/sandboxes/${id}`);
      } catch (error) {
        context.failure(`${side.prefix}http.storm`, error);
      }
    }),
  );
  context.sample(`${side.prefix}http.storm-${STORM}`, performance.now() - begun);
}
