/** What all commands that talk to a server share: their options, and the connection's life around their work. */
import { Command } from "commander";
import { type Client, NotFoundError, type Sandbox } from "../../sdk/src/index.ts";
import { StacyError } from "../host/error.ts";
import { type Connection, type ConnectOptions, connectServer, type ServerOptions } from "./connection.ts";
import { type Interrupts, interruptible } from "./interrupt.ts";
import { apiKeyOption } from "./published-options.ts";

export interface ClientOptions extends ServerOptions {
  json?: boolean;
}

export interface Session {
  client: Client;
  /** Where its server is. */
  kind: Connection["kind"];
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
  interrupts: Interrupts;
}

export function clientCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .option("--json", "print JSON, errors too")
    .option(
      "--server <url>",
      "which server (default: STACYVM_URL, else the one on this data directory, else one that this command starts)",
    )
    .option("--api-key-file <file>", "file with the server's key (default: STACYVM_API_KEY_FILE; or STACYVM_API_KEY)")
    .addOption(apiKeyOption())
    .option("--as <owner>", "act as this owner (for administrators)")
    .option("--verbose", "show the causes of errors");
}

/** Does `work` with a server, and lets go of it afterwards. */
export function withServer<T>(options: ConnectOptions, work: (session: Session) => Promise<T>): Promise<T> {
  return interruptible(async (signal, interrupts) => {
    const connection = await connectServer(options, signal);
    try {
      return await work({ client: connection.client, kind: connection.kind, signal, interrupts });
    } finally {
      await connection.close(interrupts);
    }
  });
}

const FULL_ID = /^sb-[0-9a-f]{8}$/;
const ID_BEGINNING = /^sb-[0-9a-f]{1,7}$/;

/**
 * By id, by name, or by an unambiguous beginning of an id, `sb-` with it: a name that is gone, `db` or `cafe`, must not mean another
 * sandbox, whose id goes on like that.
 * @throws StacyError `not-found`, `invalid`
 */
export async function findSandbox(client: Client, id: string, signal?: AbortSignal): Promise<Sandbox> {
  if (id === "") throw new StacyError("invalid", "the sandbox's id is empty", { remedy: "see `stacyvm ls`" });
  if (FULL_ID.test(id)) return client.get(id, { signal });
  const named = await client.get(id, { signal }).catch((error: unknown) => {
    if (!(error instanceof NotFoundError)) throw error;
  });
  if (named !== undefined) return named;
  const all = await client.list({ signal });
  const found = ID_BEGINNING.test(id) ? all.filter((sandbox) => sandbox.id.startsWith(id)) : [];
  const [sandbox] = found;
  if (sandbox === undefined) throw notFound(id, all);
  if (found.length > 1) {
    throw new StacyError("invalid", `${found.length} sandboxes begin with ${id}`, { remedy: "write more of the id" });
  }
  return sandbox;
}

/** Names are each owner's own: an administrator's list shows one that only its owner may use. */
function notFound(id: string, all: Sandbox[]): StacyError {
  const others = all.filter(({ info }) => info.name === id);
  const [first] = others;
  if (first === undefined) {
    return new StacyError("not-found", `there is no sandbox ${JSON.stringify(id)}`, { remedy: "see `stacyvm ls`" });
  }
  const ways = others.map(({ id: theirs, info }) => `${theirs} (or --as ${info.owner})`);
  return new StacyError("not-found", `no sandbox of your own is called ${JSON.stringify(id)}`, {
    remedy: `another owner's is: name it by its id, ${ways.slice(0, 3).join(", ")}${ways.length > 3 ? ", ... (see `stacyvm ls`)" : ""}`,
  });
}

/** The same work for each of several ids; all are tried, and the first failure is thrown. */
export async function forEachSandbox(
  { client, signal }: Session,
  ids: string[],
  work: (sandbox: Sandbox) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = [];
  for (const id of ids) {
    signal.throwIfAborted();
    try {
      await work(await findSandbox(client, id, signal));
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) {
    const words = failures.map((failure) => (failure instanceof Error ? failure.message : String(failure)));
    throw new StacyError("invalid", words.join("; "), { cause: failures[0] });
  }
}
