/** What all tools have in common: strict arguments, what a host may expect of each, and failures that a model can act on. */
import type { CallToolResult, McpServer, ToolAnnotations } from "@modelcontextprotocol/server";
import { z } from "zod";
import { StacyError } from "../../../sdk/src/index.ts";
import { Call } from "./call.ts";

export type Content = CallToolResult["content"][number];

/** What a host may ask its user about before it lets a model do it. */
export type Kind =
  /** Changes nothing. */
  | "looks"
  /** Adds something, and takes nothing away. */
  | "adds"
  /** May overwrite or delete; twice is as once. */
  | "replaces"
  /** Runs what the model has written: anything, inside its sandbox. */
  | "runs";

export interface Tool<Fields extends z.ZodRawShape> {
  name: string;
  title: string;
  description: string;
  kind: Kind;
  fields: Fields;
  work(input: z.output<z.ZodObject<Fields>>, call: Call): Promise<string | Content[]>;
}

export const sandboxArgument = z
  .string()
  .optional()
  .describe("Id of a sandbox, as other tools name it. Leave it out for this session's own sandbox.");

export const count = (most: number) => z.int().min(1).max(most);

export class Tools {
  readonly #server: McpServer;
  /** Whether what runs may reach anything outside. */
  readonly #openWorld: boolean;

  constructor(server: McpServer, openWorld: boolean) {
    this.#server = server;
    this.#openWorld = openWorld;
  }

  add<Fields extends z.ZodRawShape>({ name, title, description, kind, fields, work }: Tool<Fields>): void {
    // An argument that is not known is refused: left out silently, `sandboxId` would run a command in another sandbox.
    const inputSchema = z.strictObject(fields);
    this.#server.registerTool(
      name,
      { title, description, inputSchema, annotations: this.#annotations(kind) },
      async (input, context): Promise<CallToolResult> => {
        using call = new Call(context);
        try {
          const said = await work(input as z.output<z.ZodObject<Fields>>, call);
          return { content: typeof said === "string" ? [{ type: "text", text: said }] : said };
        } catch (error) {
          return { content: [{ type: "text", text: explained(error) }], isError: true };
        }
      },
    );
  }

  #annotations(kind: Kind): ToolAnnotations {
    const openWorldHint = kind === "runs" && this.#openWorld;
    if (kind === "looks") return { readOnlyHint: true, openWorldHint };
    return {
      readOnlyHint: false,
      destructiveHint: kind !== "adds",
      idempotentHint: kind === "replaces",
      openWorldHint,
    };
  }
}

/** A failure that says what to do next. */
export class Advice extends Error {
  constructor(what: string, next: string, cause?: unknown) {
    super(`${what}\nnext: ${next}`, { cause });
  }
}

const NEXT: Record<string, string> = {
  RESOURCE_LIMIT: "end sandboxes that you no longer need (list_sandboxes, destroy_sandbox), then try again",
  NO_SPACE: "delete files or checkpoints that you no longer need; otherwise tell the user that the host's disk is full",
  TIMEOUT: "try again, or do less at once",
  CONNECTION: "tell the user that the StacyVM server does not answer; `stacyvm doctor` says why",
  FORBIDDEN: "tell the user; only they can permit it",
  UNAUTHORIZED: "tell the user that the key for the StacyVM server is missing or wrong",
};

/** For a model. Hints that name our commands are for whoever has a shell on the host. */
export function explained(error: unknown): string {
  if (!(error instanceof StacyError)) return error instanceof Error ? error.message : String(error);
  const { message, hint, code } = error;
  const next = NEXT[code] ?? (hint?.includes("stacyvm ") ? `tell the user: ${hint}` : hint);
  return next === undefined ? message : `${message}\nnext: ${next}`;
}
