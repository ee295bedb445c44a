import type { Command } from "commander";
import { allowOption, parseCount, parseDuration, sizeOption } from "../arguments.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import type { ModelOptions } from "../mcp-server.ts";

/** `stacyvm mcp`: sandboxes as tools for a language model, over the Model Context Protocol on standard input and output. */
export function mcpCommand(): Command {
  return clientCommand("mcp", "give a language model sandboxes as tools (Model Context Protocol, on stdin and stdout)")
    .option("--image <name>", "what its sandboxes are made of, unless it asks for another", "stacyvm/python")
    .addOption(sizeOption("-m, --memory <size>", "memory of each", 512))
    .option("-c, --vcpus <n>", "virtual CPUs of each", parseCount, 1)
    .option("--ttl <time>", "how long each lives at most", parseDuration, "1h")
    .addOption(allowOption("they"))
    .option("--keep", "leave its sandboxes when the connection ends (default: remove them)")
    .action((options: ClientOptions & ModelOptions) =>
      withServer({ ...options, boots: true }, async ({ client, signal }) => {
        const { serveModel } = await import("../mcp-server.ts");
        await serveModel(client, options, signal);
      }),
    );
}
