/** `stacyvm image ...`: the base images of this host. Works beside a running server: the store is made for several processes. */
import { Command, Option } from "commander";
import { collectImages, removeImage } from "../../images/care.ts";
import type { Image, ImageConfig, ImportOptions } from "../../images/image.ts";
import { parseSizeMiB } from "../arguments.ts";
import { interruptible } from "../interrupt.ts";
import { bytes, printJson, sinceNow } from "../output.ts";
import { ProgressLine } from "../progress-line.ts";
import { printTable } from "../table.ts";
import { imageBuildCommand } from "./image-build.ts";

interface Json {
  json?: boolean;
}

export function imageCommand(): Command {
  const command = new Command("image").description("pull, build, import, list and remove images");
  for (const part of [
    imageLsCommand(),
    pullCommand(),
    imageBuildCommand(),
    importCommand(),
    inspect(),
    tag(),
    imageRmCommand(),
    gc(),
  ]) {
    command.addCommand(part.exitOverride());
  }
  return command;
}

const load = (): Promise<typeof import("../image-store.ts")> => import("../image-store.ts");

export function imageLsCommand(): Command {
  return new Command("ls")
    .description("images on this host")
    .option("--json", "print JSON, errors too")
    .action(async (options: Json) => {
      const { openStore, imageBody } = await load();
      const images = await (await openStore()).library.list();
      if (options.json === true) return printJson(images.map(imageBody));
      printTable(
        ["IMAGE", "OWNER", "DIGEST", "FILESYSTEM", "SIZE", "AGE"],
        images.map((image) => [
          image.reference,
          image.owner ?? "-",
          image.digest.slice(0, 19),
          image.filesystem,
          bytes(image.sizeBytes),
          sinceNow(new Date(image.createdAt).toISOString()),
        ]),
        { drop: ["FILESYSTEM", "OWNER", "DIGEST"], shorten: ["IMAGE", "OWNER"] },
      );
    });
}

export function pullCommand(): Command {
  return new Command("pull")
    .description("pull images, or ask again whether their tags have moved")
    .argument("<reference...>", "for example python:3.12, ghcr.io/team/tool@sha256:..., stacyvm/python")
    .option("--json", "print JSON, errors too")
    .addOption(
      new Option("--policy <when>", "when to ask the registry").choices(["always", "missing"]).default("always"),
    )
    .action(async (references: string[], options: Json & { policy: "always" | "missing" }) => {
      const { openStore, printImages } = await load();
      const { library, users, limit } = await openStore();
      const pulled: Image[] = [];
      for (const reference of references) {
        using line = new ProgressLine(references.length > 1 ? `${reference}: ` : "");
        pulled.push(
          await interruptible((signal) =>
            library.resolve(reference, { pull: options.policy, progress: line.show, signal }),
          ),
        );
      }
      // What a moved tag left behind goes now, unless something still uses it.
      await collectImages(library, [users], limit > 0 ? { maxBytes: limit } : {});
      printImages(pulled, options);
    });
}

function importCommand(): Command {
  return new Command("import")
    .description("take an image from a file or directory of this host")
    .argument("<source>", "OCI layout (directory or archive), `docker save` archive, tar of a file tree, or directory")
    .argument("<reference>", "the name it gets")
    .option("--tag <tag>", "which image, where the source has several")
    .option("--rootfs", "take the source as the file tree itself, whatever it looks like")
    .option("-e, --env <K=V...>", "environment instead of the source's")
    .option("-w, --workdir <path>", "working directory")
    .option("-u, --user <user>", "user")
    .option("--cmd <word...>", "command")
    .option("--json", "print JSON, errors too")
    .action(
      async (
        source: string,
        reference: string,
        options: Json & {
          tag?: string;
          rootfs?: boolean;
          env?: string[];
          workdir?: string;
          user?: string;
          cmd?: string[];
        },
      ) => {
        const config: Partial<ImageConfig> = {
          ...(options.env === undefined ? {} : { env: options.env }),
          ...(options.workdir === undefined ? {} : { cwd: options.workdir }),
          ...(options.user === undefined ? {} : { user: options.user }),
          ...(options.cmd === undefined ? {} : { cmd: options.cmd }),
        };
        const { openStore, printImages } = await load();
        const { library } = await openStore();
        const common: ImportOptions = {
          ...(options.tag === undefined ? {} : { tag: options.tag }),
          ...(options.rootfs === true ? { as: "rootfs" as const } : {}),
          ...(Object.keys(config).length === 0 ? {} : { config }),
        };
        let image: Image;
        {
          using line = new ProgressLine();
          image = await interruptible((signal) =>
            library.import(source, reference, { ...common, progress: line.show, signal }),
          );
        }
        printImages([image], options);
      },
    );
}

function inspect(): Command {
  return new Command("inspect")
    .description("everything that is known about images, as JSON")
    .argument("<reference...>")
    .action(async (references: string[]) => {
      const { openStore, imageDetailsBody } = await load();
      const { library } = await openStore();
      const found = await Promise.all(references.map((reference) => library.inspect(reference)));
      printJson(found.map((image) => ({ ...imageDetailsBody(image), path: image.base })));
    });
}

function tag(): Command {
  return new Command("tag")
    .description("give an image another name")
    .argument("<reference>")
    .argument("<name>")
    .option("--json", "print JSON, errors too")
    .action(async (reference: string, name: string, options: Json) => {
      const { openStore, printImages } = await load();
      printImages([await (await openStore()).library.tag(reference, name)], options);
    });
}

export function imageRmCommand(): Command {
  return new Command("rm")
    .description("remove images; with the last name of one its base disk and its golden snapshots go")
    .argument("<reference...>", "a name, or sha256:... for all names of an image")
    .action(async (references: string[]) => {
      const { openStore } = await load();
      const { library, users } = await openStore();
      for (const reference of references) {
        await removeImage(library, [users], reference);
        process.stderr.write(`removed ${reference}\n`);
      }
    });
}

function gc(): Command {
  return new Command("gc")
    .description("remove what nobody needs, then what was used longest ago, never what is in use")
    .option(
      "--max <size>",
      "what may stay, for example 20g (default: images.max_bytes of the configuration)",
      parseSizeMiB,
    )
    .option("-n, --dry-run", "only say what would go")
    .option("--json", "print JSON, errors too")
    .action(async (options: Json & { max?: number; dryRun?: boolean }) => {
      const { openStore } = await load();
      const { library, users, limit } = await openStore();
      const maxBytes = options.max === undefined ? limit : options.max * 2 ** 20;
      const done = await collectImages(library, [users], {
        ...(maxBytes > 0 || options.max !== undefined ? { maxBytes } : {}),
        dryRun: options.dryRun === true,
      });
      if (options.json === true) return printJson({ ...done, dryRun: options.dryRun === true });
      for (const digest of done.images) process.stdout.write(`image ${digest}\n`);
      for (const digest of done.blobs) process.stdout.write(`layer ${digest}\n`);
      for (const key of done.builds) process.stdout.write(`build ${key}\n`);
      for (const key of done.snapshots) process.stdout.write(`snapshot ${key}\n`);
      const would = options.dryRun === true ? "would free" : "freed";
      process.stderr.write(`${would} ${bytes(done.freed)}, ${bytes(done.kept)} stay\n`);
    });
}
