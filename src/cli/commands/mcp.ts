import type { Command } from "commander";
import { allowOption, parseDuration } from "../arguments.ts";
import { type ClientOptions, clientCommand } from "../client-command.ts";
import { type Connection, connectServer, namedServer } from "../connection.ts";
import { type Interrupts, interruptible } from "../interrupt.ts";
import type { ModelOptions } from "../mcp/session.ts";
import { note } from "../output.ts";
import { memoryOption, vcpusOption } from "../size-options.ts";

type Options = ClientOptions & Omit<ModelOptions, "image"> & { image?: string };

/** The most useful one, which takes minutes to make; and one that is made in half a minute. */
const IMAGE = "stacyvm/code";
const QUICK_IMAGE = "stacyvm/python";

/** `stacyvm mcp`: sandboxes as tools for a language model, over the Model Context Protocol on standard input and output. */
export function mcpCommand(): Command {
  return clientCommand("mcp", "give a language model sandboxes as tools (Model Context Protocol, on stdin and stdout)")
    .option(
      "--image <name>",
      `what its sandboxes are made of, unless it asks for another (default: ${IMAGE} if it is here, else ${QUICK_IMAGE})`,
    )
    .addOption(memoryOption())
    .addOption(vcpusOption())
    .option("--ttl <time>", "how long each stays after its last use", parseDuration, "1h")
    .addOption(allowOption("they"))
    .option("--keep", "leave its sandboxes when the connection ends (default: remove them)")
    .action((options: Options) => interruptible((_signal, interrupts) => serve(options, interrupts)));
}

/** Its client is answered at once; the server is found or started when the client has had its first answers. */
async function serve(options: Options, interrupts: Interrupts): Promise<void> {
  let connection: Promise<Connection> | undefined;
  const connect = async (ended: AbortSignal) => {
    const signal = AbortSignal.any([interrupts.signal, ended]);
    connection = connectServer({ ...options, boots: true, stays: "here" }, signal);
    return (await connection).client;
  };
  const image = options.image ?? (await defaultImage(options, interrupts.signal));
  const { serveModel } = await import("../mcp/serve.ts");
  try {
    await serveModel(connect, { ...options, image }, interrupts.signal);
  } finally {
    // Why there was none has been told to whoever called.
    const open = await connection?.catch(() => undefined);
    await open?.close(interrupts);
  }
}

/** A model's first call does not wait for minutes. */
async function defaultImage(options: Options, signal: AbortSignal): Promise<string> {
  if (await isHere(options, signal)) return IMAGE;
  note(
    `using ${QUICK_IMAGE}: Python alone. \`stacyvm image pull ${IMAGE}\`, once, gives the next session Node, git, pip and a compiler`,
  );
  return QUICK_IMAGE;
}

async function isHere(options: Options, signal: AbortSignal): Promise<boolean> {
  const named = await namedServer(options);
  const images =
    named === undefined
      ? await import("../image-store.ts").then(async ({ openStore }) => (await openStore()).library.list())
      : await named.images.list({ signal }).catch(() => []);
  return images.some(({ reference }) => reference === IMAGE);
}
