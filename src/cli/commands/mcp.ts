import type { Command } from "commander";
import type { Client } from "../../../sdk/src/index.ts";
import { allowOption, parseDuration } from "../arguments.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
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
    .action((options: Options) =>
      withServer({ ...options, boots: true, stays: "here" }, async ({ client, signal }) => {
        const { serveModel } = await import("../mcp/serve.ts");
        const image = options.image ?? (await defaultImage(client, signal));
        await serveModel(client, { ...options, image }, signal);
      }),
    );
}

/** A model's first call does not wait for minutes. */
async function defaultImage(client: Client, signal: AbortSignal): Promise<string> {
  const images = await client.images.list({ signal }).catch(() => []);
  if (images.some(({ reference }) => reference === IMAGE)) return IMAGE;
  note(
    `using ${QUICK_IMAGE}: Python alone. \`stacyvm image pull ${IMAGE}\`, once, gives the next session Node, git, pip and a compiler`,
  );
  return QUICK_IMAGE;
}
