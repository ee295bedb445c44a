import { open, stat } from "node:fs/promises";
import { basename, join, posix } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Command } from "commander";
import { type Files, NotFoundError } from "../../../sdk/src/index.ts";
import { nameBytes } from "../../host/byte-name.ts";
import { StacyError } from "../../host/error.ts";
import { archiveOf } from "../../images/directory.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { bytes, note, printJson } from "../output.ts";
import { saveFile } from "../save-file.ts";
import { type LeftOut, unpackTree } from "../unpack-tree.ts";

interface Place {
  sandbox: string;
  path: string;
}

interface Copied {
  from: string;
  to: string;
}

/** `stacyvm cp`: files and directories, in and out; `-` is standard input or output. */
export function cpCommand(): Command {
  return clientCommand(
    "cp",
    "copy files and directories into or out of a sandbox. What comes out of it belongs to you: setuid, setgid and sticky bits are dropped, and device nodes, FIFOs and sockets are left out; a warning says how many bits and nodes",
  )
    .summary("copy files and directories into or out of a sandbox")
    .argument("<from>", "PATH here, ID:PATH in a sandbox, or - for standard input")
    .argument("<to>", "the same; - for standard output; into a directory if it is one or ends with /")
    .addHelpText("after", wrappedNote("For example: stacyvm cp data.csv sb-1a2b3c4d:/workspace/"))
    .action((from: string, to: string, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const source = placeOf(from);
        const target = placeOf(to);
        if ((source === undefined) === (target === undefined)) {
          throw new StacyError("invalid", "exactly one of the two must be in a sandbox", {
            remedy: "write it as ID:PATH",
          });
        }
        let copied: Copied;
        if (source !== undefined) {
          const { files, id } = await findSandbox(client, source.sandbox, signal);
          copied = await copyOut(files, source.path, to, signal);
          copied.from = `${id}:${copied.from}`;
        } else {
          const place = target as Place;
          const { files, id } = await findSandbox(client, place.sandbox, signal);
          copied = await copyIn(files, from, place.path, signal);
          copied.to = `${id}:${copied.to}`;
        }
        if (options.json === true && to !== "-") printJson(copied);
      }),
    );
}

/** `ID:PATH`; a path here may have a colon after a slash or a dot. */
function placeOf(text: string): Place | undefined {
  const match = /^([\w-]+):(.*)$/s.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { sandbox: match[1], path: match[2] === "" ? "." : match[2] };
}

async function copyIn(files: Files, from: string, to: string, signal: AbortSignal): Promise<Copied> {
  if (from === "-") {
    await sent(process.stdin, (body) => files.write(to, body, { signal }));
    return { from, to };
  }
  const here = await stat(nameBytes(from)).catch((cause: Error) => {
    throw new StacyError("not-found", cause.message, { cause });
  });
  const target = (await isDirectory(files, to, signal)) || to.endsWith("/") ? posix.join(to, basename(from)) : to;
  if (here.isDirectory()) {
    await files.mkdir(target, { signal });
    const tree = archiveOf(from, { asRoot: false, changing: true, signal });
    await sent(tree, (body) => files.writeArchive(target, body, { signal }));
  } else {
    await using file = await open(nameBytes(from));
    // Gone before its handle is closed, which waits for it: an answer may come before all was read.
    await using content = file.createReadStream();
    await sent(content, (body) => files.write(target, body, { mode: here.mode & 0o777, signal }));
  }
  return { from, to: target };
}

async function copyOut(files: Files, from: string, to: string, signal: AbortSignal): Promise<Copied> {
  const there = await files.stat(from, { signal });
  if (to === "-") {
    if (there.isDir) throw new StacyError("invalid", `${from} is a directory`, { remedy: "name where to put it" });
    await pipeline(Readable.fromWeb((await files.readStream(from, { signal })) as never), process.stdout, {
      end: false,
    });
    return { from, to };
  }
  const into = await stat(nameBytes(to)).then(
    (found) => found.isDirectory(),
    () => to.endsWith("/"),
  );
  const target = into ? join(to, posix.basename(posix.resolve("/", from))) : to;
  if (there.isDir) noteLeftOut(await unpackTree(target, await files.readArchive(from, { signal })));
  else {
    const content = Readable.fromWeb((await files.readStream(from, { signal })) as never);
    const mode = Number.parseInt(there.mode, 8);
    await saveFile(target, content, mode);
    noteLeftOut({ nodes: 0, bits: (mode & 0o7000) === 0 ? 0 : 1 });
  }
  if (process.stderr.isTTY && !there.isDir) note(`${target}: ${bytes(there.size)}`);
  return { from, to: target };
}

/** A copy that is not whole says so. */
export function noteLeftOut({ nodes, bits }: LeftOut): void {
  if (nodes > 0) note(`warning: not copied: ${nodes} device ${nodes === 1 ? "node or FIFO" : "nodes or FIFOs"}`);
  if (bits > 0) note(`warning: copied without the setuid, setgid or sticky bit: ${bits} of the files and directories`);
}

async function isDirectory(files: Files, path: string, signal: AbortSignal): Promise<boolean> {
  try {
    return (await files.stat(path, { signal })).isDir;
  } catch (error) {
    if (error instanceof NotFoundError) return false;
    throw error;
  }
}

/** What cannot be read here breaks the request, which would be told as a broken connection. */
async function sent(
  content: AsyncIterable<Uint8Array>,
  send: (body: ReadableStream<Uint8Array>) => Promise<unknown>,
): Promise<void> {
  let unreadable: { error: unknown } | undefined;
  async function* read(): AsyncGenerator<Uint8Array> {
    try {
      yield* content;
    } catch (error) {
      unreadable = { error };
      throw error;
    }
  }
  try {
    await send(Readable.toWeb(Readable.from(read())) as unknown as ReadableStream<Uint8Array>);
  } catch (error) {
    throw unreadable === undefined ? error : unreadable.error;
  }
}
