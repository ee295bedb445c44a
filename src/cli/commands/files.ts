/** `stacyvm files ...`: what one does with files in a sandbox, beside `cp`. */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Command } from "commander";
import type { Files } from "../../../sdk/src/index.ts";
import { parseCount, parseMode } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { bytes, printJson, printJsonLine, printLine } from "../output.ts";
import { printTable } from "../table.ts";

export function filesCommand(): Command {
  const command = new Command("files").description("list, read, write and change files in a sandbox");
  for (const part of [list(), cat(), write(), remove(), move(), copy(), chmod(), mkdir(), stat(), glob(), watch()]) {
    command.addCommand(part);
  }
  return command;
}

function fileCommand(name: string, description: string): Command {
  return clientCommand(name, description).argument("<id>", "the sandbox");
}

function withFiles(
  id: string,
  options: ClientOptions,
  work: (files: Files, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  return withServer(options, async ({ client, signal }) => work((await findSandbox(client, id, signal)).files, signal));
}

/** What a change says when it is done: nothing, or JSON. */
function done(options: ClientOptions, status: string): void {
  if (options.json === true) printJson({ status });
}

function list(): Command {
  return fileCommand("ls", "list a directory")
    .argument("[path]", "which one", ".")
    .option("-r, --recursive", "with everything below")
    .option("--depth <n>", "how deep", parseCount)
    .action((id: string, path: string, options: ClientOptions & { recursive?: boolean; depth?: number }) =>
      withFiles(id, options, async (files, signal) => {
        const recursive = options.recursive === true;
        const all = await files.list(path, { recursive, ...(options.depth && { depth: options.depth }), signal });
        if (options.json === true) return printJson(all);
        printTable(
          ["MODE", "OWNER", "SIZE", "CHANGED", "NAME"],
          all.map((info) => [
            info.mode.padStart(4, "0"),
            `${info.uid}:${info.gid}`,
            info.kind === "file" ? bytes(info.size) : info.kind,
            info.modTime.slice(0, 19),
            `${recursive ? info.path : info.name}${info.isDir ? "/" : ""}${info.target === undefined ? "" : ` -> ${info.target}`}`,
          ]),
          { drop: ["OWNER", "MODE", "CHANGED"], shorten: ["NAME"] },
        );
      }),
    );
}

function cat(): Command {
  return fileCommand("cat", "write files to standard output")
    .argument("<path...>")
    .action((id: string, paths: string[], options: ClientOptions) =>
      withFiles(id, options, async (files, signal) => {
        for (const path of paths) {
          if (options.json === true) printJsonLine({ path, content: await files.read(path, { signal }) });
          else {
            const content = await files.readStream(path, { signal });
            await pipeline(Readable.fromWeb(content as never), process.stdout, { end: false });
          }
        }
      }),
    );
}

function write(): Command {
  return fileCommand("write", "write standard input to a file, whole or not at all")
    .argument("<path>")
    .option("--mode <bits>", "permission bits", parseMode)
    .option("--append", "at its end")
    .option("--exclusive", "fail when it is there")
    .action(
      (id: string, path: string, options: ClientOptions & { mode?: number; append?: boolean; exclusive?: boolean }) =>
        withFiles(id, options, async (files, signal) => {
          const { mode, append, exclusive } = options;
          const content = Readable.toWeb(process.stdin) as unknown as ReadableStream<Uint8Array>;
          await files.write(path, content, { mode, append, exclusive, signal });
          done(options, "written");
        }),
    );
}

function remove(): Command {
  return fileCommand("rm", "remove files")
    .argument("<path...>")
    .option("-r, --recursive", "directories with everything below")
    .action((id: string, paths: string[], options: ClientOptions & { recursive?: boolean }) =>
      withFiles(id, options, async (files, signal) => {
        const recursive = options.recursive === true;
        for (const path of paths) await files.remove(path, { recursive, signal });
        done(options, "deleted");
      }),
    );
}

function move(): Command {
  return fileCommand("mv", "move or rename")
    .argument("<from>")
    .argument("<to>")
    .action((id: string, from: string, to: string, options: ClientOptions) =>
      withFiles(id, options, async (files, signal) => {
        await files.move(from, to, { signal });
        done(options, "moved");
      }),
    );
}

function copy(): Command {
  return fileCommand("cp", "copy inside the sandbox")
    .argument("<from>")
    .argument("<to>")
    .option("-r, --recursive", "directories with everything below")
    .action((id: string, from: string, to: string, options: ClientOptions & { recursive?: boolean }) =>
      withFiles(id, options, async (files, signal) => {
        await files.copy(from, to, { recursive: options.recursive === true, signal });
        done(options, "copied");
      }),
    );
}

function chmod(): Command {
  return fileCommand("chmod", "change permission bits")
    .argument("<mode>", "in octal", parseMode)
    .argument("<path...>")
    .option("-r, --recursive", "with everything below")
    .action((id: string, mode: number, paths: string[], options: ClientOptions & { recursive?: boolean }) =>
      withFiles(id, options, async (files, signal) => {
        const recursive = options.recursive === true;
        for (const path of paths) await files.chmod(path, mode, { recursive, signal });
        done(options, "changed");
      }),
    );
}

function mkdir(): Command {
  return fileCommand("mkdir", "make directories with their parents")
    .argument("<path...>")
    .option("--mode <bits>", "permission bits", parseMode)
    .action((id: string, paths: string[], options: ClientOptions & { mode?: number }) =>
      withFiles(id, options, async (files, signal) => {
        const mode = options.mode === undefined ? {} : { mode: options.mode };
        for (const path of paths) await files.mkdir(path, { ...mode, signal });
        done(options, "made");
      }),
    );
}

function stat(): Command {
  return fileCommand("stat", "everything about files, as a JSON array")
    .argument("<path...>")
    .action((id: string, paths: string[], options: ClientOptions) =>
      withFiles(id, options, async (files, signal) => {
        printJson(await Promise.all(paths.map((path) => files.stat(path, { signal }))));
      }),
    );
}

function glob(): Command {
  return fileCommand("glob", "names that match a pattern; ** crosses directories")
    .argument("<pattern>", "quote it, or the shell expands it here")
    .action((id: string, pattern: string, options: ClientOptions) =>
      withFiles(id, options, async (files, signal) => {
        const names = await files.glob(pattern, { signal });
        if (options.json === true) return printJson(names);
        for (const name of names) printLine(name);
      }),
    );
}

function watch(): Command {
  return fileCommand("watch", "changes below a path as they happen, until Ctrl-C")
    .argument("[path]", "where", ".")
    .option("-r, --recursive", "with everything below")
    .action((id: string, path: string, options: ClientOptions & { recursive?: boolean }) =>
      withFiles(id, options, async (files, signal) => {
        for await (const change of files.watch(path, { recursive: options.recursive === true, signal })) {
          if (options.json === true) printJsonLine(change);
          else printLine(`${change.change} ${change.path}${change.to === undefined ? "" : ` -> ${change.to}`}`);
        }
      }),
    );
}
