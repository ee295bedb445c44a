/** `stacyvm image build`: the work itself. Loaded when it is asked for, as image-store.ts is. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { imageBody } from "../api/schemas/image.ts";
import { buildImage } from "../builder/build.ts";
import { BuildContext } from "../builder/context.ts";
import { BUILD_FILES } from "../builder/plan.ts";
import { readPlan } from "../builder/read-plan.ts";
import { nameText } from "../host/byte-name.ts";
import { errno, StacyError } from "../host/error.ts";
import { ownedName } from "../host/owned-name.ts";
import { createMicrovmProvider } from "../providers/microvm.ts";
import { createEngine } from "./engine.ts";
import { printJson, printLine } from "./output.ts";
import { ProgressLine } from "./progress-line.ts";

export interface BuildCommandOptions {
  tag: string;
  file?: string;
  arg: string[];
  target?: string;
  memory: number;
  vcpus: number;
  disk: number;
  allow?: string[];
  provider?: string;
  pull?: boolean;
  cache: boolean;
  quiet?: boolean;
  json?: boolean;
}

/** @param directory absolute */
export async function build(directory: string, options: BuildCommandOptions, signal: AbortSignal): Promise<void> {
  const file = options.file ?? (await findFile(directory));
  const plan = readPlan(await readText(file), {
    args: assignments(options.arg),
    ...(options.target === undefined ? {} : { target: options.target }),
  });
  const { images, paths, launcher, network, defaults } = await createEngine(
    options.provider === undefined ? {} : { provider: options.provider },
  );
  await using work = await images.scratch();
  using line = new ProgressLine();
  line.show({ step: `reading ${directory}` });
  await using context = await BuildContext.ofDirectory(directory, join(work.path, "context"), {
    buildFile: file,
    signal,
  });
  // Its machines belong to this process, and not to the sandboxes of a server, which may start meanwhile or has been running for long:
  // what a build that is killed leaves is removed by the next start, as a golden snapshot that was being made.
  const provider = createMicrovmProvider({
    ...{ vmm: launcher.vmm, images, network },
    paths: { ...paths, sandboxes: paths.tmp },
  });
  try {
    const { image, cached, steps } = await buildImage(plan, options.tag, {
      images,
      context,
      diskMiB: options.disk,
      start: async (image, abort) => {
        const machine = await provider.spawn({
          id: await ownedName("build"),
          image,
          memoryMiB: options.memory,
          vcpus: options.vcpus,
          diskMiB: options.disk,
          env: {},
          setup: [],
          allowedHosts: options.allow ?? defaults.hosts,
          forkable: false,
          ...(abort === undefined ? {} : { signal: abort }),
        });
        return { agent: machine.agent, [Symbol.asyncDispose]: () => machine.destroy() };
      },
      ...(options.pull === true ? { pull: true } : {}),
      ...(options.cache ? {} : { noCache: true }),
      progress: line.show,
      ...(options.quiet === true ? {} : { output: (text) => line.print(text) }),
      signal,
    });
    line[Symbol.dispose]();
    if (options.json === true) printJson({ ...imageBody(image), path: image.base, cached, steps });
    else printLine(`${image.reference} ${image.digest}`);
  } finally {
    await provider.close();
  }
}

async function findFile(directory: string): Promise<string> {
  for (const name of BUILD_FILES) {
    const path = join(directory, name);
    const found = await stat(path).catch(() => undefined);
    if (found?.isFile()) return path;
  }
  throw new StacyError("not-found", `${directory} has no ${BUILD_FILES.join(" and no ")}`, {
    remedy: "name the file with --file",
  });
}

async function readText(path: string): Promise<string> {
  const bytes = await readFile(path).catch((cause) => {
    if (errno(cause) !== "ENOENT" && errno(cause) !== "EISDIR") throw cause;
    throw new StacyError("not-found", `there is no file ${path}`, { cause });
  });
  return nameText(bytes);
}

function assignments(entries: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    entries.map((entry) => {
      const at = entry.indexOf("=");
      if (at <= 0) throw new StacyError("invalid", `"${entry}" is not K=V`, { remedy: "write --arg NAME=value" });
      return [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
}
