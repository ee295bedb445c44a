/** Commands of the published StacyVM that have no counterpart of their own here: `config lint`, `db backup|restore`, `support bundle`. */
import { chmod, copyFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { StacyError } from "../../host/error.ts";
import { exists } from "../../host/exists.ts";
import { dataPaths, defaultDataDir } from "../../host/paths.ts";
import { keepToOwner } from "../../host/umask.ts";
import { clientCommand } from "../client-command.ts";
import { localClient, namedServer, type ServerOptions } from "../connection.ts";
import { findLocal } from "../local-socket.ts";
import { note, printLine } from "../output.ts";
import { version } from "../version.ts";

export function configForm(): Command {
  const lint = new Command("lint")
    .description("check the configuration")
    .option("--file <file>", "another than the usual one")
    .option("--production", "what would be dangerous in production is a failure")
    .action(async (options: { file?: string; production?: boolean }) => {
      const [{ loadConfig }, { answersOwnUser, assertSafeToListen }, { Keys }, { Store }] = await Promise.all([
        import("../../config/load.ts"),
        import("../../access/configured.ts"),
        import("../../access/keys.ts"),
        import("../../sandboxes/store.ts"),
      ]);
      const { config, path, notes } = await loadConfig({
        serves: true,
        ...(options.file === undefined ? {} : { file: options.file }),
      });
      for (const each of notes) note(`note: ${each}`);
      const database = await databasePath();
      using store = new Store((await exists(database)) ? database : ":memory:");
      for (const warning of assertSafeToListen(config, new Keys(store))) note(`note: ${warning}`);
      if (options.production === true && answersOwnUser(config)) {
        throw new StacyError("invalid", "no API key is set", { remedy: "set auth.api_key" });
      }
      printLine(`${path}: ok`);
    });
  return new Command("config").description("check the configuration").addCommand(lint);
}

export function databaseForm(): Command {
  const backup = new Command("backup")
    .description("copy the server's database, also while it runs")
    .argument("<output>", "the copy")
    .option("--database <file>", "another than the configured one")
    .option("--force", "replace the copy")
    .action(async (output: string, options: { database?: string; force?: boolean }) => {
      if (options.force !== true && (await exists(output))) {
        throw new StacyError("conflict", `${output} exists already`, { remedy: "choose another name, or use --force" });
      }
      const sqlite = await import("node:sqlite");
      const path = options.database ?? (await databasePath());
      if (!(await exists(path))) throw new StacyError("not-found", `there is no database ${path}`);
      // It has what people ran, and hashes of keys. Beside it lies a journal while it is written, so a directory of its own, in
      // which nobody has put anything.
      keepToOwner();
      const work = await mkdtemp(`${output}.partial-`);
      const partial = join(work, "copy.db");
      using source = new sqlite.DatabaseSync(path, { readOnly: true, timeout: 5_000 });
      try {
        await sqlite.backup(source, partial);
        await rename(partial, output);
      } finally {
        await rm(work, { recursive: true, force: true });
      }
      printLine(output);
    });
  const restore = new Command("restore")
    .description("put a copy back; the server must not run")
    .argument("<backup>", "the copy")
    .option("--database <file>", "another than the configured one")
    .option("--yes", "replace the database")
    .action(async (copy: string, options: { database?: string; yes?: boolean }) => {
      const path = options.database ?? (await databasePath());
      if (options.yes !== true) {
        throw new StacyError("invalid", `this replaces ${path}`, { remedy: "say --yes" });
      }
      const [{ takeDataDir }, { Database }] = await Promise.all([
        import("../take-data-dir.ts"),
        import("../../sandboxes/database.ts"),
      ]);
      await using lock = await takeDataDir(dataPaths());
      if (lock === undefined) {
        throw new StacyError("conflict", "a server runs on this data directory", { remedy: "stop it first" });
      }
      const fresh = `${path}.restoring`;
      await copyFile(copy, fresh);
      try {
        await chmod(fresh, 0o600); // as the copy is, until then
        new Database(fresh).close(); // what is no database of ours, or of a newer version, is refused here
      } catch (error) {
        await rm(fresh, { force: true });
        throw error;
      } finally {
        for (const rest of ["-wal", "-shm"]) await rm(`${fresh}${rest}`, { force: true });
      }
      if (await exists(path)) {
        await rename(path, `${path}.before-restore`);
        note(`the database that was there is ${path}.before-restore`);
      }
      for (const rest of ["-wal", "-shm"]) await rm(`${path}${rest}`, { force: true });
      await rename(fresh, path);
      printLine(path);
    });
  return new Command("db")
    .description("copy the server's database, and put a copy back")
    .addCommand(backup)
    .addCommand(restore);
}

export function supportForm(): Command {
  const bundle = clientCommand("bundle", "write what helps to find a fault into one file, without keys")
    .argument("<output>", "a file, JSON")
    .option("--config <file>", "another than the usual configuration")
    .option("--include-doctor", "always included")
    .option("--include-server", "always included, if a server runs")
    .action(async (output: string, options: ServerOptions & { config?: string }) => {
      const [{ loadConfig }, { redact }, { examine }] = await Promise.all([
        import("../../config/load.ts"),
        import("../../config/schema.ts"),
        import("./doctor.ts"),
      ]);
      const { config, path, notes } = await loadConfig({
        serves: true,
        ...(options.config === undefined ? {} : { file: options.config }),
      });
      using local = await findLocal(dataPaths().root);
      const client =
        (await namedServer(options)) ?? (local === undefined ? undefined : await localClient(local, options));
      const server =
        client === undefined
          ? { note: "no server runs" }
          : await client.transport.call("GET /diagnostics").catch((error: Error) => ({ error: error.message }));
      const findings = (await examine()).map(({ fix: _, ...finding }) => finding);
      const content = {
        created_at: new Date().toISOString(),
        version,
        node: process.version,
        config: { path, notes, values: redact(config) },
        doctor: findings,
        server,
      };
      await writeFile(output, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
      printLine(output);
    });
  return new Command("support").description("what helps to find a fault").addCommand(bundle);
}

async function databasePath(): Promise<string> {
  const { loadConfig } = await import("../../config/load.ts");
  const { config } = await loadConfig();
  return config.database.path || dataPaths(config.data_dir || defaultDataDir()).database;
}
