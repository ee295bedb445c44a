/** Files of the sandboxes, of any kind: as tools for the model, and as resources for its host. */
import { type McpServer, ResourceTemplate } from "@modelcontextprotocol/server";
import { z } from "zod";
import { type FileInfo, NotFoundError, type Sandbox } from "../../../sdk/src/index.ts";
import { Call } from "./call.ts";
import { fileResource, fileUri, parseFileUri, shownFile } from "./file-content.ts";
import type { Session } from "./session.ts";
import { shortened } from "./shortened.ts";
import { Advice, sandboxArgument, type Tools } from "./tool.ts";

/** Of each sandbox. */
const LISTED_FILES = 100;
const path = z.string().min(1).max(4_096).describe("Absolute, or relative to the working directory");

export function addFileTools(tools: Tools, session: Session): void {
  const files = <T>(id: string | undefined, call: Call, work: (sandbox: Sandbox) => Promise<T>): Promise<T> =>
    session.use(id, call, work).catch((error: unknown) => {
      if (!(error instanceof NotFoundError)) throw error;
      throw new Advice(error.message, "see what is there with list_files", error);
    });
  tools.add({
    name: "write_file",
    title: "Write a file",
    description:
      "Write a whole file in a sandbox; directories on the way are made, an older file is replaced. For bytes that are no text, give base64.",
    kind: "replaces",
    fields: {
      path,
      content: z.string(),
      encoding: z.enum(["utf8", "base64"]).default("utf8").describe("Of content"),
      sandbox: sandboxArgument,
    },
    work: ({ path, content, encoding, sandbox }, call) =>
      files(sandbox, call, async (machine) => {
        const bytes = Buffer.from(content, encoding);
        await machine.files.write(path, bytes, { signal: call.signal });
        return `wrote ${bytes.length} bytes to ${path} in ${machine.id}`;
      }),
  });
  tools.add({
    name: "read_file",
    title: "Read a file",
    description:
      "Read a file of a sandbox. Text comes as text (of a long one the beginning and the end: take parts with offset and length), a picture as an image, " +
      "everything else as the address of a resource.",
    kind: "looks",
    fields: {
      path,
      offset: z.int().min(0).optional().describe("First byte of a part of a text"),
      length: z.int().min(1).optional().describe("Bytes of that part"),
      sandbox: sandboxArgument,
    },
    work: ({ path, offset, length, sandbox }, call) =>
      files(sandbox, call, (machine) => shownFile(machine, path, { offset, length }, call.signal)),
  });
  tools.add({
    name: "list_files",
    title: "List files",
    description: "List a directory of a sandbox.",
    kind: "looks",
    fields: { path: path.default("."), sandbox: sandboxArgument },
    work: ({ path, sandbox }, call) =>
      files(sandbox, call, async (machine) => {
        const entries = await machine.files.list(path, { signal: call.signal });
        return entries.length === 0 ? "empty" : shortened(entries.map(lineOf).join("\n"));
      }),
  });
}

function lineOf({ name, kind, size, target }: FileInfo): string {
  if (kind === "directory") return `${name}/`;
  return kind === "symlink" ? `${name} -> ${target ?? "?"}` : `${name}  ${size} bytes`;
}

export function addFileResources(server: McpServer, session: Session): void {
  server.registerResource(
    "file",
    new ResourceTemplate("stacyvm://{sandbox}/{+path}", {
      list: async ({ mcpReq: { signal } }) => ({
        resources: (await Promise.all(session.sandboxes.map((sandbox) => filesOf(sandbox, signal)))).flat(),
      }),
    }),
    { title: "A file of a sandbox", description: "Text or bytes, by its absolute path in the sandbox." },
    async ({ href }, _variables, context) => {
      using call = new Call(context);
      const { sandbox, path } = parseFileUri(href);
      return session.use(sandbox, call, (machine) => fileResource(machine, path, href, call.signal));
    },
  );
}

/** Those of its working directory; none of one that has ended. */
async function filesOf(sandbox: Sandbox, signal: AbortSignal) {
  const entries = await sandbox.files.list(".", { signal }).catch(() => []);
  return entries
    .filter(({ kind }) => kind === "file")
    .slice(0, LISTED_FILES)
    .map(({ path, name, size }) => ({ uri: fileUri(sandbox.id, path), name, size }));
}
