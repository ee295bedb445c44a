/** `stacyvm image build`: an image from a file of steps, made in a sandbox of this process. */
import { resolve } from "node:path";
import { Command } from "commander";
import { BUILD_FILES } from "../../builder/plan.ts";
import { DEFAULT_SIZE } from "../../sandboxes/limits.ts";
import { allowOption, parseCount, sizeOption } from "../arguments.ts";
import type { BuildCommandOptions } from "../image-building.ts";
import { interruptible } from "../interrupt.ts";

export function imageBuildCommand(): Command {
  return new Command("build")
    .description("build an image from a file of steps (YAML or a Dockerfile), in a sandbox")
    .argument("[directory]", "the files that steps may copy", ".")
    .requiredOption("-t, --tag <name>", "the name of the image")
    .option("-f, --file <path>", `the file of steps (default: ${BUILD_FILES.join(" or ")} in the directory)`)
    .option("--arg <K=V...>", "values for a Dockerfile's ARG", [])
    .option("--target <stage>", "a Dockerfile's stage that is the result (default: the last)")
    .addOption(sizeOption("-m, --memory <size>", "memory of the sandbox", DEFAULT_SIZE.memoryMiB))
    .option("-c, --vcpus <n>", "virtual CPUs of the sandbox", parseCount, DEFAULT_SIZE.vcpus)
    .addOption(sizeOption("--disk <size>", "writable space of the sandbox", 8192))
    .addOption(allowOption("its commands"))
    .option("--provider <name>", "firecracker, qemu or auto")
    .option("--pull", "ask the registry again what the base's name means")
    .option("--no-cache", "do every step again")
    .option("-q, --quiet", "do not show what the commands print")
    .option("--json", "print JSON, errors too")
    .action(async (directory: string, options: BuildCommandOptions) => {
      const { build } = await import("../image-building.ts");
      await interruptible((signal) => build(resolve(directory), options, signal));
    });
}
