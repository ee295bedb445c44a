/** What a user would pick instead on this host: a container runtime that starts one command of the same tree. */
import { copyFile, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { firstExisting } from "../src/host/exists.ts";
import type { DataPaths } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import type { BenchContext } from "./harness.ts";

export async function peers(context: BenchContext, paths: DataPaths): Promise<void> {
  for (const runtime of ["crun", "runc"]) {
    const version = await runTool(runtime, ["--version"]).then(
      (out) => out.toString("utf8").split("\n")[0] ?? "",
      () => undefined,
    );
    if (version === undefined) {
      context.note(`${runtime} is not installed, so it was not measured`);
      continue;
    }
    context.versions[runtime] = version;
    const bundle = join(paths.tmp, `peer-${runtime}-${process.pid}`);
    try {
      await mkdir(join(bundle, "rootfs", "bin"), { recursive: true });
      const busybox = await firstExisting(["/bin/busybox", "/usr/bin/busybox"]);
      if (busybox === undefined) {
        context.note(`no static busybox on this host, so ${runtime} was not measured`);
        continue;
      }
      await copyFile(busybox, join(bundle, "rootfs", "bin", "echo"));
      await runTool(runtime, ["spec"], { cwd: bundle });
      await runTool(
        "sed",
        ["-i", 's/"terminal": true/"terminal": false/; s/"sh"/"\\/bin\\/echo", "hello"/', "config.json"],
        { cwd: bundle },
      );
      for (let i = 0; i < 20; i++) {
        const start = performance.now();
        await runTool(runtime, ["run", `stacyvm-bench-${process.pid}-${i}`], { cwd: bundle, timeoutMs: 20_000 });
        context.sample(`peer.${runtime}.first-exec`, performance.now() - start);
      }
    } catch (error) {
      context.note(
        `${runtime} cannot run containers here: ${error instanceof Error ? error.message.split("\n")[0] : error}`,
      );
    } finally {
      await rm(bundle, { recursive: true, force: true });
    }
  }
}
