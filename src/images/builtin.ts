/**
 * The images that need no registry: `stacyvm/busybox`, small; `stacyvm/python`, a minimal system with Python; `stacyvm/code`, what
 * people and models write programs with; `stacyvm/base`, what E2B's clients expect of a machine; `stacyvm/code-interpreter`, the same
 * with Python's libraries for data, and Node. Made from the distribution's packages; the same packages and recipe give the same bytes,
 * whoever builds and when.
 */
import { createHash } from "node:crypto";
import { chmod, open } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../host/run.ts";
import { type BaseOptions, buildBase, type Layer } from "./base.ts";
import { DEFAULT_PATH } from "./content.ts";
import type { ImageConfig, Progress } from "./image.ts";
import { type PackageSet, packageTree } from "./packages.ts";
import { type DirectoryNode, directory, type FileData, type FileTree, NO_XATTRS, symlink } from "./tree.ts";

/** Raised when the code below makes something else of the same recipe; a changed recipe is seen by itself (`recipeDigest`). */
const BUILD_VERSION = 1;

/** Data only, all of it in its digest. */
export interface Recipe {
  set: PackageSet;
  config: ImageConfig;
  makes: "busybox" | SystemOptions;
}

interface SystemOptions {
  /** The user of E2B's templates: its rows, its home. */
  user?: true;
  /** An empty one is made there. */
  directory?: string;
}

const PATH = `PATH=${DEFAULT_PATH}`;

/** As E2B's templates have it. */
const USER = "user";
// iproute2 has `ss`, by which its clients ask whether a port is open.
const BASE = ["python3", "python-is-python3", "ca-certificates", "curl", "git", "iproute2", "procps", "sudo"];

const CODE = [
  ...BASE,
  ...["build-essential", "pkg-config", "python3-dev", "python3-pip", "python3-venv", "nodejs", "npm"],
  ...[
    "wget",
    "openssh-client",
    "rsync",
    "less",
    "nano",
    "jq",
    "ripgrep",
    "sqlite3",
    "file",
    "unzip",
    "zip",
    "xz-utils",
  ],
  ...["numpy", "pandas", "matplotlib", "requests", "yaml", "bs4", "lxml", "pil", "pytest", "ipykernel"].map(
    (name) => `python3-${name}`,
  ),
];

const RECIPES: Record<string, Recipe> = {
  "stacyvm/busybox": {
    set: { variant: "extract", packages: ["busybox-static"] },
    config: config(["sh"]),
    makes: "busybox",
  },
  "stacyvm/python": {
    // Certificates, since what Python programs do first is an https request.
    set: { variant: "minbase", packages: ["python3", "ca-certificates"] },
    config: config(["python3"]),
    makes: {},
  },
  "stacyvm/code": {
    set: { variant: "minbase", packages: CODE },
    config: {
      ...config(["bash"]),
      // Debian's pip installs nothing beside its own packages unless told to; here nobody else's system is at stake.
      env: [PATH, "LANG=C.UTF-8", "PIP_BREAK_SYSTEM_PACKAGES=1", "PIP_ROOT_USER_ACTION=ignore"],
      cwd: "/workspace",
    },
    makes: { directory: "workspace" },
  },
  "stacyvm/base": {
    set: { variant: "minbase", packages: BASE },
    config: { ...config(["bash"]), user: USER, cwd: `/home/${USER}` },
    makes: { user: true },
  },
  "stacyvm/code-interpreter": {
    set: {
      variant: "minbase",
      packages: [
        ...BASE,
        ...["numpy", "pandas", "matplotlib", "ipykernel", "pip"].map((name) => `python3-${name}`),
        // Debian's Node runs no TypeScript by itself.
        ...["nodejs", "esbuild"],
      ],
    },
    config: { ...config(["python3"]), user: USER, cwd: `/home/${USER}` },
    makes: { user: true },
  },
};

function config(cmd: string[]): ImageConfig {
  return { env: [PATH, "LANG=C.UTF-8"], cwd: "/root", entrypoint: [], cmd, labels: {}, exposedPorts: [] };
}

export const builtinNames = Object.keys(RECIPES);

/** @returns of a built-in image what it is made of: an image that another recipe made is not it. `undefined` for other images */
export function builtinDigest(name: string): string | undefined {
  const recipe = Object.hasOwn(RECIPES, name) ? RECIPES[name] : undefined;
  return recipe === undefined ? undefined : recipeDigest(recipe);
}

export function recipeDigest(recipe: Recipe): string {
  const everywhere = [BUILD_VERSION, DROPPED.map(String), String(DOCUMENTATION), USER_ROWS];
  return createHash("sha256")
    .update(JSON.stringify([everywhere, recipe]))
    .digest("hex")
    .slice(0, 16);
}

export interface BuiltinOptions extends BaseOptions {
  workDir: string;
}

/** Builds the base of a built-in image at `path`. @returns its configuration */
export async function buildBuiltin(name: string, path: string, options: BuiltinOptions): Promise<ImageConfig> {
  const recipe = RECIPES[name];
  if (recipe === undefined) throw new TypeError(`${name} is no built-in image`);
  const from = Math.floor(Date.now() / 1000);
  // Which of several images it is about.
  const progress = ({ step, ...amount }: Progress): void => options.progress?.({ step: `${name}: ${step}`, ...amount });
  const layer: Layer = { open: (signal) => packageTree(recipe.set, progress, signal), whiteouts: false };
  if (recipe.makes === "busybox") await buildBusybox(layer, path, options.workDir, options, from);
  else await buildSystem(recipe.makes, layer, path, options, from);
  return recipe.config;
}

/** Never part of an image: caches, logs, and what only tells about the building host. */
const DROPPED = [
  /^(dev|proc|sys|run|tmp)\/./,
  /^var\/(cache|log|tmp)\/./,
  /^var\/lib\/apt\/lists\/./,
  /^var\/lib\/dpkg\/.*-old$/,
  /^etc\/(resolv\.conf|hostname|machine-id|\.pwd\.lock)$/,
  /^etc\/(passwd|group|shadow|gshadow)-$/,
];
/** Nothing that a program reads. Copyright files stay: they are the terms of what is in the image. */
const DOCUMENTATION =
  /^usr\/share\/(doc\/.*\/(?!copyright$)[^/]+$|man\/.|info\/.|lintian\/.|locale\/.|bug\/.|doc-base\/.|linda\/.)/;

async function buildSystem(
  { user, directory }: SystemOptions,
  layer: Layer,
  path: string,
  options: BaseOptions,
  from: number,
): Promise<void> {
  const rewrite = (entry: string): Rewrite | undefined => {
    const known = REWRITES[entry];
    const row = user ? USER_ROWS[entry] : undefined;
    if (row === undefined) return known;
    return (content) => Buffer.concat([known?.(content) ?? content, Buffer.from(row)]);
  };
  const keep = (entry: string): boolean =>
    !DROPPED.some((pattern) => pattern.test(entry)) && !DOCUMENTATION.test(entry);
  await buildBase(path, [{ ...layer, keep, rewrite }], {
    ...options,
    edit: (tree) => {
      if (user) addHome(tree);
      if (directory !== undefined) ensureDirectory(tree, directory);
      finishSystem(tree, from);
    },
  });
}

type Rewrite = (content: Buffer) => Buffer;

/** Content that would differ from build to build, or tell a secret. */
const REWRITES: Record<string, Rewrite> = {
  // The day of the last password change is the day of the build.
  "etc/shadow": (content) =>
    Buffer.from(content.toString("latin1").replace(/^([^:]*:[^:]*:)\d+:/gm, "$119000:"), "latin1"),
  // The host's archive may be reached with a password.
  "etc/apt/sources.list": (content) =>
    Buffer.from(
      content
        .toString("utf8")
        .replace(/(\/\/)[^/@\s]+@/g, "$1")
        .replace(/\[[^\]]*\] /g, ""),
    ),
};

/** A user who may do everything, in the tables of the system. */
const USER_ROWS: Record<string, string> = {
  "etc/passwd": `${USER}:x:1000:1000::/home/${USER}:/bin/bash\n`,
  "etc/group": `${USER}:x:1000:\n`,
  "etc/shadow": `${USER}:*:19000:0:99999:7:::\n`,
  "etc/gshadow": `${USER}:!::\n`,
};

function addHome(tree: FileTree): void {
  const home = ensureDirectory(tree, `home/${USER}`);
  Object.assign(home, { uid: 1000, gid: 1000 });
  for (const name of [".bashrc", ".profile"]) {
    const skeleton = tree.find(`etc/skel/${name}`);
    if (skeleton?.type === "file") tree.put(`home/${USER}/${name}`, { ...skeleton, uid: 1000, gid: 1000 });
  }
  addFile(tree, `etc/sudoers.d/${USER}`, `${USER} ALL=(ALL:ALL) NOPASSWD: ALL\n`, 0o440);
}

function finishSystem(tree: FileTree, from: number): void {
  for (const name of ["dev", "proc", "sys", "run", "root", "var/cache", "var/log"]) ensureDirectory(tree, name);
  for (const name of ["tmp", "var/tmp"]) ensureDirectory(tree, name, 0o1777);
  addTexts(tree);
  settleTimes(tree, from);
}

/** Small files of every built-in image. Clones get their own host name and machine id from the handshake. */
function addTexts(tree: FileTree): void {
  const add = (path: string, content: string): void => addFile(tree, path, content);
  add("etc/hostname", "sandbox\n");
  add("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
  add("etc/machine-id", "");
  add("etc/resolv.conf", "");
  if (tree.find("etc/passwd") === undefined) {
    add("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n");
    add("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
    add("etc/shadow", "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n");
    const shadow = tree.find("etc/shadow");
    if (shadow !== undefined) shadow.mode = 0o600;
  }
}

function addFile(tree: FileTree, path: string, content: string, mode = 0o644): void {
  const data: FileData = { size: content.length, block: 0, tail: content === "" ? undefined : Buffer.from(content) };
  tree.put(path, { type: "file", data, mode, uid: 0, gid: 0, mtime: 0, mtimeNs: 0, xattrs: NO_XATTRS });
}

function ensureDirectory(tree: FileTree, path: string, mode = 0o755): DirectoryNode {
  const present = tree.find(path);
  if (present?.type === "directory") return present;
  const made = directory(mode);
  tree.put(path, made);
  return made;
}

/**
 * What the build itself wrote gets the time of the newest file that came in a package, so the same packages give the same
 * bytes. Files out of packages keep theirs: Python compares the times of sources with those in its compiled files.
 */
function settleTimes(tree: FileTree, from: number): void {
  let newest = 0;
  for (const [, node] of tree.nodes()) if (node.mtime < from && node.mtime > newest) newest = node.mtime;
  for (const [, node] of tree.nodes()) {
    if (node.mtime < from && node.mtime !== 0) continue;
    node.mtime = newest;
    node.mtimeNs = 0;
  }
}

async function buildBusybox(
  layer: Layer,
  path: string,
  workDir: string,
  options: BaseOptions,
  from: number,
): Promise<void> {
  let applets: string[] = [];
  const busybox = join(workDir, "busybox");
  await buildBase(
    path,
    [
      {
        ...layer,
        keep: (entry) =>
          ["", "bin", "etc", "usr", "usr/bin", "usr/share", "usr/share/doc", "usr/share/doc/busybox-static"].includes(
            entry,
          ) || /^(usr\/)?bin\/busybox$|^usr\/share\/doc\/busybox-static\/copyright$/.test(entry),
        // The program itself knows the names that it answers to.
        rewrite: (entry) =>
          entry.endsWith("bin/busybox")
            ? async (content) => {
                applets = await appletsOf(busybox, content, options.signal);
                return content;
              }
            : undefined,
      },
    ],
    { ...options, edit: (tree) => finishBusybox(tree, applets, from) },
  );
}

async function appletsOf(path: string, program: Buffer, signal?: AbortSignal): Promise<string[]> {
  await using file = await open(path, "wx");
  await file.write(program);
  await file.close();
  await chmod(path, 0o700);
  const list = await runTool(path, ["--list-full"], { timeoutMs: 30_000, ...(signal === undefined ? {} : { signal }) });
  return list
    .toString("utf8")
    .split("\n")
    .filter((name) => /^[\w./[-]+$/.test(name));
}

function finishBusybox(tree: FileTree, applets: string[], from: number): void {
  const program = tree.find("bin/busybox") === undefined ? "/usr/bin/busybox" : "/bin/busybox";
  const names = [
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "etc",
    "dev",
    "proc",
    "sys",
    "run",
    "root",
    "home",
    "mnt",
    "var",
  ];
  for (const name of names) ensureDirectory(tree, name);
  for (const name of ["tmp", "var/tmp"]) ensureDirectory(tree, name, 0o1777);
  for (const applet of ["bin/busybox", ...applets]) {
    if (tree.find(applet) === undefined) tree.put(applet, symlink(program));
  }
  addTexts(tree);
  settleTimes(tree, from);
}
