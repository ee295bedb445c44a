/**
 * A real PostgreSQL, and a PgBouncer before it, each in a directory of its own: the system's programs, or what scripts/fetch-postgres.sh
 * unpacks. As root they run as `nobody`, since PostgreSQL refuses root. They end with their owner, also when that is killed.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";

const execute = promisify(execFile);
const NOBODY = 65_534;
/** Of a second, as the kernel counts processor time for programs. */
const TICKS = 100;
const unpacked = join(packageRoot, ".build/postgres");

interface Programs {
  /** With `initdb` and `postgres`. */
  bin: string;
  pgbouncer: string;
  env: NodeJS.ProcessEnv;
}

async function programs(): Promise<Programs> {
  await execute("sh", [join(packageRoot, "scripts/fetch-postgres.sh")]);
  const found = async (root: string): Promise<string | undefined> => {
    const lib = join(root, "usr/lib/postgresql");
    for (const version of (await readdir(lib).catch(() => [])).sort().reverse())
      if (await exists(join(lib, version, "bin/initdb"))) return join(lib, version, "bin");
    return undefined;
  };
  const bin = (await found("/")) ?? (await found(unpacked));
  if (bin === undefined) throw new Error("there is no PostgreSQL, and scripts/fetch-postgres.sh has brought none");
  const own = join(unpacked, "usr/sbin/pgbouncer");
  const pgbouncer = (await exists("/usr/sbin/pgbouncer")) ? "/usr/sbin/pgbouncer" : own;
  const libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map((path) => join(unpacked, path)).join(":");
  return { bin, pgbouncer, env: { PATH: process.env.PATH, LC_ALL: "C", TZ: "UTC", LD_LIBRARY_PATH: libraries } };
}

/** In a directory that its user gets to, whoever we are. */
async function ownDirectory(name: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), `stacyvm-${name}-`));
  await chmod(dir, 0o700);
  if (process.getuid?.() === 0) await chown(dir, NOBODY, NOBODY);
  return dir;
}

/** As the user that may run it, and ended with this process. */
function asUser(command: string, args: readonly string[], signal = "QUIT"): [string, string[]] {
  const user = process.getuid?.() === 0 ? [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"] : [];
  return ["setpriv", [...user, `--pdeathsig=${signal}`, command, ...args]];
}

/** A program that is ended and waited for. */
class Running {
  readonly child: ChildProcess;

  constructor(child: ChildProcess) {
    this.child = child;
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    if (this.ended) return;
    const exited = once(this.child, "exit");
    this.child.kill("SIGCONT");
    this.child.kill(signal);
    await exited;
  }
}

async function start(command: string, args: string[], dir: string, env: NodeJS.ProcessEnv): Promise<Running> {
  const log = await open(join(dir, "log"), "a");
  try {
    const [program, all] = asUser(command, args);
    return new Running(spawn(program, all, { cwd: dir, env, stdio: ["ignore", log.fd, log.fd] }));
  } finally {
    await log.close();
  }
}

/** Until it answers a query. @throws with its log when it ends, or after a minute */
async function answers(url: string, running: Running, dir: string): Promise<void> {
  const until = Date.now() + 60_000;
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
    client.on("error", () => {});
    const error = await client
      .connect()
      .then(() => client.query("SELECT 1"))
      .then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
    await client.end().catch(() => {});
    if (error === undefined) return;
    if (running.ended || Date.now() > until) {
      throw new Error(`it does not answer:\n${await readFile(join(dir, "log"), "utf8")}`, { cause: error });
    }
    await delay(20);
  }
}

export class Postgres implements AsyncDisposable {
  /** For `fleet.database_url`, over a socket in its directory. */
  readonly url: string;
  readonly dir: string;
  readonly #programs: Programs;
  /** What it has said is on disk. */
  readonly #durable: boolean;
  #running: Running | undefined;
  #waker: ChildProcess | undefined;

  private constructor(dir: string, found: Programs, durable: boolean) {
    this.dir = dir;
    this.#durable = durable;
    this.#programs = found;
    this.url = `postgresql://stacyvm@localhost/postgres?host=${encodeURIComponent(dir)}`;
  }

  static async create({ durable = false } = {}): Promise<Postgres> {
    const found = await programs();
    const dir = await ownDirectory("postgres");
    const postgres = new Postgres(dir, found, durable);
    const options = ["-D", join(dir, "data"), "-U", "stacyvm", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
    const [program, args] = asUser(join(found.bin, "initdb"), options);
    await execute(program, args, { cwd: dir, env: found.env });
    await postgres.start();
    return postgres;
  }

  async start(): Promise<void> {
    const settings = [
      ...[`unix_socket_directories=${this.dir}`, "listen_addresses=", "max_connections=200"],
      ...[`fsync=${this.#durable ? "on" : "off"}`],
      ...["shared_buffers=32MB", "jit=off", "autovacuum_naptime=5s"],
    ];
    const args = ["-D", join(this.dir, "data"), ...settings.flatMap((each) => ["-c", each])];
    this.#running = await start(join(this.#programs.bin, "postgres"), args, this.dir, this.#programs.env);
    await answers(this.url, this.#running, this.dir);
  }

  /** It and all of its processes, at once: as by a crash. */
  async kill(): Promise<void> {
    const pids = await this.#pids();
    const running = this.#running;
    this.#running = undefined;
    const exited = running === undefined || running.ended ? undefined : once(running.child, "exit");
    for (const pid of pids) signalTo(pid, "SIGKILL");
    await exited;
    // The next one refuses to start while one of them has the shared memory.
    for (const pid of pids) while (await runs(pid)) await delay(5);
  }

  /** It and all of its processes stand still: who asks gets no answer. */
  async stop(): Promise<void> {
    const pids = await this.#pids();
    // What stands still does not end with us: somebody wakes it when we are gone, however that comes.
    const script = `read _; kill -CONT ${pids.join(" ")} 2>/dev/null`;
    this.#waker?.stdin?.end();
    this.#waker = spawn("sh", ["-c", script], { stdio: ["pipe", "ignore", "ignore"], detached: true });
    for (const pid of pids) signalTo(pid, "SIGSTOP");
  }

  async goOn(): Promise<void> {
    for (const pid of await this.#pids()) signalTo(pid, "SIGCONT");
    this.#waker?.stdin?.end();
    this.#waker = undefined;
  }

  // biome-ignore lint/suspicious/noExplicitAny: whatever the test asks for
  async query(sql: string, values: unknown[] = []): Promise<any[]> {
    const client = new pg.Client({ connectionString: this.url });
    await client.connect();
    try {
      return (await client.query(sql, values)).rows;
    } finally {
      await client.end();
    }
  }

  /** Processor time of all of its processes until now, ms. */
  async cpuMs(): Promise<number> {
    let ticks = 0;
    for (const pid of await this.#pids()) {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      // After the name: 12 to 15 are its own, and those of children that have ended.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      for (const i of [11, 12, 13, 14]) ticks += Number(fields[i] ?? 0);
    }
    return (ticks * 1_000) / TICKS;
  }

  /** The first process, and its children. */
  async #pids(): Promise<number[]> {
    const first = this.#running?.child.pid;
    if (first === undefined) return [];
    const children = await readFile(`/proc/${first}/task/${first}/children`, "utf8").catch(() => "");
    return [first, ...children.split(" ").filter(Boolean).map(Number)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.goOn();
    await this.#running?.end("SIGQUIT");
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  }
}

/** Before a PostgreSQL, in its transaction mode: each transaction has whatever connection is free. */
export class PgBouncer implements AsyncDisposable {
  readonly url: string;
  readonly #dir: string;
  readonly #running: Running;

  private constructor(dir: string, running: Running) {
    this.#dir = dir;
    this.#running = running;
    this.url = `postgresql://stacyvm@localhost/postgres?host=${encodeURIComponent(dir)}`;
  }

  static async create(postgres: Postgres): Promise<PgBouncer> {
    const found = await programs();
    const dir = await ownDirectory("pgbouncer");
    const settings = [
      "[databases]",
      `postgres = host=${postgres.dir} port=5432 dbname=postgres user=stacyvm`,
      "[pgbouncer]",
      ...["listen_addr =", "listen_port = 5432", `unix_socket_dir = ${dir}`, "auth_type = any"],
      ...["pool_mode = transaction", "default_pool_size = 4", "max_client_conn = 200"],
    ];
    const file = join(dir, "pgbouncer.ini");
    await writeFile(file, `${settings.join("\n")}\n`);
    await chmod(file, 0o644);
    const bouncer = new PgBouncer(dir, await start(found.pgbouncer, [file], dir, found.env));
    await answers(bouncer.url, bouncer.#running, dir);
    return bouncer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running.end("SIGTERM");
    await rm(this.#dir, { recursive: true, force: true });
  }
}

async function runs(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !/\) [ZX] /.test(stat);
}

function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {} // it has ended
}
