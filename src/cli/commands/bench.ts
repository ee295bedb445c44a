import { spawn } from "node:child_process";
import { extname, join } from "node:path";
import { Command } from "commander";
import { packageRoot } from "../../host/paths.ts";

/** `stacyvm bench SUITE`: the benchmarks of this repository, on this machine. */
export function benchCommand(): Command {
  return new Command("bench")
    .description("measure this machine: spawn, firecracker, agent, server, images, ready, network")
    .argument("[suite]", "which one", "spawn")
    .argument("[args...]", "its arguments, for example --json")
    .passThroughOptions()
    .allowUnknownOption()
    .action(async (suite: string, args: string[]) => {
      const child = spawn(
        process.execPath,
        [join(packageRoot, "bench", `main${extname(import.meta.filename)}`), suite, ...args],
        {
          stdio: "inherit",
        },
      );
      process.exitCode = await new Promise<number>((resolve) => child.once("exit", (code) => resolve(code ?? 1)));
    });
}
