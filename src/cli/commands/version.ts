import type { Command } from "commander";
import { dataPaths } from "../../host/paths.ts";
import { clientCommand } from "../client-command.ts";
import { localClient, namedServer, type ServerOptions } from "../connection.ts";
import { findLocal } from "../local-socket.ts";
import { printJson, printLine } from "../output.ts";
import { version } from "../version.ts";

/** `stacyvm version`: of this program, and of the server that it would talk to. Starts none. */
export function versionCommand(): Command {
  return clientCommand("version", "versions of this program and of the server, if one runs").action(
    async (options: ServerOptions & { json?: boolean }) => {
      using local = await findLocal(dataPaths().root);
      const client =
        (await namedServer(options)) ?? (local === undefined ? undefined : await localClient(local, options));
      const server = client === undefined ? undefined : { url: client.url, version: (await client.health()).version };
      const runtime = process.versions.node;
      if (options.json === true) return printJson({ version, node: runtime, ...(server && { server }) });
      printLine(`stacyvm ${version}, Node ${runtime}`);
      printLine(server === undefined ? "no server runs" : `server ${server.version} at ${server.url}`);
    },
  );
}
