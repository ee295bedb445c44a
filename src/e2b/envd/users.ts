/** Whose files and processes they are: the image's own users, `user` where it has one, as E2B's templates do. */
import { posix } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Agent } from "../../guest/agent.ts";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";

export interface GuestUser {
  name: string;
  uid: number;
  gid: number;
  home: string;
  /** Where its commands run when nobody says where; absent: at home. */
  cwd?: string;
  /** What the agent makes is this user's already: the image says so. */
  own?: true;
}

/** E2B's own, when nobody says who. */
const DEFAULT = "user";
const ROOT: GuestUser = { name: "root", uid: 0, gid: 0, home: "/root" };

/** What an image says about users. */
export interface UserDefaults {
  /** Who commands run as. */
  user?: string;
  /** The image is a template's: who and where its last steps named counts, as at E2B. */
  template?: { cwd?: string };
}

/** The image's users and groups, as they are now. */
export class Users {
  readonly #byName: Map<string, GuestUser>;
  readonly #byUid: Map<string, GuestUser>;
  readonly #groups: Map<number, string>;
  readonly #defaults: UserDefaults;

  private constructor(passwd: string, group: string, defaults: UserDefaults) {
    const users = rows(passwd).flatMap(([name, , uid, gid, , home]) =>
      name === undefined || gid === undefined ? [] : [{ name, uid: Number(uid), gid: Number(gid), home: home || "/" }],
    );
    // Of two lines the first one counts, as Linux has it.
    users.reverse();
    this.#byName = new Map(users.map((user) => [user.name, user]));
    this.#byUid = new Map(users.map((user) => [String(user.uid), user]));
    this.#groups = new Map(rows(group).map(([name = "", , gid]) => [Number(gid), name]));
    this.#defaults = defaults;
  }

  static async read(agent: Agent, defaults: UserDefaults, signal?: AbortSignal): Promise<Users> {
    const tables = ["/etc/passwd", "/etc/group"].map((path) => textOf(agent, path, signal));
    const [passwd = "", group = ""] = await Promise.all(tables);
    return new Users(passwd, group, defaults);
  }

  /** @param name empty: the default. @throws ConnectError `unauthenticated`, as clients expect it for a user that is not there */
  find(name: string | undefined): GuestUser {
    const wanted = name || this.#default();
    const found = this.#known(wanted) ?? (wanted === "root" || wanted === "0" ? ROOT : undefined);
    if (found === undefined) throw new ConnectError(`invalid username: '${wanted}'`, Code.Unauthenticated);
    const [imageUser] = (this.#defaults.user ?? "root").split(":");
    const cwd = this.#defaults.template?.cwd;
    return {
      ...found,
      // A build begins in this one, so nobody has named it.
      ...(cwd === undefined || cwd === `/home/${DEFAULT}` ? {} : { cwd }),
      ...(imageUser === found.name || imageUser === String(found.uid) ? { own: true } : {}),
    };
  }

  #known(wanted: string): GuestUser | undefined {
    return this.#byName.get(wanted) ?? this.#byUid.get(wanted);
  }

  #default(): string {
    const [named] = (this.#defaults.user ?? "").split(":");
    if (named && this.#defaults.template !== undefined) return named;
    return this.#byName.has(DEFAULT) ? DEFAULT : named || "root";
  }

  userName(uid: number): string {
    return this.#byUid.get(String(uid))?.name ?? String(uid);
  }

  groupName(gid: number): string {
    return this.#groups.get(gid) ?? String(gid);
  }
}

/** A path as its user writes it: relative to the home directory, which `~` stands for; none: where its commands run. @throws StacyError `invalid` */
export function pathOf(path: string, { home, cwd = home }: Pick<GuestUser, "home" | "cwd">): string {
  if (path.includes("\0")) throw new StacyError("invalid", "path: has a NUL byte");
  if (path === "") return cwd;
  if (path === "~") return home;
  if (path.startsWith("~/")) return posix.join(home, path.slice(2));
  if (path.startsWith("~")) throw new StacyError("invalid", `path: ${path}: only one's own home directory has a name`);
  return posix.resolve(home, path);
}

/** Gives what the agent has made to its user. */
export async function give(agent: Agent, { uid, gid, own }: GuestUser, paths: readonly string[]): Promise<void> {
  if (own === true || paths.length === 0) return;
  const { exitCode, stderr } = await agent.exec({
    argv: ["chown", "-h", `${uid}:${gid}`, "--", ...paths],
    user: "root",
    cwd: "/",
    timeoutMs: 10_000,
  });
  if (exitCode !== 0) throw new StacyError("internal", `chown: ${stderr.toString("utf8").trim()}`);
}

function rows(table: string): string[][] {
  return table
    .split("\n", E2B_BOUNDS.users)
    .map((line) => line.split(":"))
    .filter((fields) => fields.length >= 3);
}

async function textOf(agent: Agent, path: string, signal: AbortSignal | undefined): Promise<string> {
  const options = { limitBytes: E2B_BOUNDS.userBytes, ...(signal === undefined ? {} : { signal }) };
  const bytes = await agent.readFile(path, options).catch((error) => {
    if (error instanceof StacyError && error.code === "not-found") return Buffer.alloc(0);
    throw error;
  });
  return bytes.toString("utf8");
}
