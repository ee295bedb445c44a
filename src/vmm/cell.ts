/**
 * Where a monitor runs: in namespaces of its own in which only its machine's files exist (cell/cell.c says how). Two small programs in C, compiled
 * once with whatever compiler set-up has brought, or the published package's own. Where that cannot be, QEMU runs as it used to, under its
 * filter of system calls alone, and `stacyvm doctor` says why. Firecracker runs in one where `firecracker.jail` asks for it and the server is
 * not root, or not at all.
 */
import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { asStacyError, StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import { isRoot } from "../host/is-root.ts";
import { kvmState } from "../host/kvm.ts";
import { once } from "../host/once.ts";
import { dataPaths, packageRoot } from "../host/paths.ts";
import { ownCapabilities } from "../host/process.ts";
import { runTool } from "../host/run.ts";
import { isShortage, wasEnded } from "../host/shortage.ts";
import { emptyNetworkIfMade } from "./empty-network.ts";

const SOURCE = join(packageRoot, "cell");
const PREBUILT = join(packageRoot, "prebuilt");
const PROGRAM = "cell";
const KVM = "/dev/kvm";
/** What the cell says when the kernel was short of something (strerror(3)). */
const SHORT_WORDS = /Cannot allocate memory|Too many open files|Resource temporarily unavailable/;
const NAMESPACES = "/proc/sys/user";
/** It takes milliseconds, and on a host that is very busy seconds. */
const TRIAL_MS = 60_000;
const READ_ONLY = "read-only-memory.so";

export interface Cell {
  program: string;
  /** Lets QEMU open a snapshot's memory for reading only, and keeps it from freeing any of it. */
  preload: string;
}

export type CellState = { usable: true; cell: Cell } | { usable: false; reason: string };

/**
 * Looks, compiles and tries it once.
 * @throws StacyError while the host is short of what that takes: it says nothing of whether there can be a cell, and nobody is to start without
 * one for it. The next who asks looks again
 */
export const cellState: () => Promise<CellState> = once(() => find().catch(judge));

/** A verdict about the host, if it is one. */
async function judge(thrown: unknown): Promise<CellState> {
  const error = asStacyError(thrown);
  const short = isShortage(thrown) || SHORT_WORDS.test(error.message);
  if (wasEnded(thrown) || (short && !(await forbidsNamespaces())))
    throw new StacyError("unavailable", `whether a monitor can have a cell is not known: ${error.message}`, {
      cause: thrown,
      remedy: error.remedy ?? "try again; see whether the host has run out of open files, memory or disk space",
    });
  return { usable: false, reason: error.message };
}

/** By a limit of none, which the kernel reports as if there were no room for another (namespaces(7)). */
async function forbidsNamespaces(): Promise<boolean> {
  const names = (await readdir(NAMESPACES).catch(() => [])).filter((name) => name.endsWith("_namespaces"));
  const limits = await Promise.all(names.map((name) => readFile(join(NAMESPACES, name), "latin1").catch(() => "")));
  return limits.some((limit) => limit.trim() === "0");
}

export interface CellFiles {
  /** The working directory, by its real path. */
  dir: string;
  /** A pair: a file, and the path under which it is shown. */
  read: readonly (string | readonly [file: string, as: string])[];
  write: readonly string[];
  /** No file becomes larger, bytes, and none is made but sockets. */
  fileBytes?: number;
  /** It maps a snapshot's memory, and has to be kept from opening that for writing. */
  clones?: boolean;
}

/** What a program of the system's needs: its libraries and data, and where the C library looks whether it may have huge pages. */
const SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32"];
const SYSTEM_FILES = ["/etc/ld.so.cache", "/sys/kernel/mm/transparent_hugepage"];

/**
 * What a QEMU that is none of the system's needs of its own: libraries and firmware, where it was installed and where it was built. Not all
 * that lies about it, which for `~/bin` would be the user's whole home.
 */
const BESIDE = ["../lib", "../lib64", "../share/qemu", "qemu-bundle", "pc-bios"];

/** The command line that starts a program of the system's, or one beside its libraries, in its cell. */
export function inCell(cell: Cell, files: CellFiles, command: string, args: readonly string[]): string[] {
  const dir = dirname(command);
  const own = command.startsWith("/usr/") || command.startsWith("/bin/") ? [] : [command];
  const near = own.length === 0 ? [] : BESIDE.map((each) => join(dir, each));
  const needs = [...named("-s", SYSTEM), ...named("-o", [...SYSTEM_FILES, ...near]), ...named("-r", own)];
  const preload = named("-l", files.clones === true ? [cell.preload] : []);
  return [files.dir, ...network(), ...needs, ...shown(files), ...preload, "--", command, ...args];
}

/** The same of a program that needs nothing but itself. */
export function aloneInCell(files: CellFiles, command: string, args: readonly string[]): string[] {
  return [files.dir, ...network(), ...shown(files), "-r", command, "--", command, ...args];
}

/** First: it is entered before anything is looked at. Without one the cell makes its own. */
function network(): string[] {
  const path = emptyNetworkIfMade();
  return named("-n", path === undefined ? [] : [path]);
}

function shown({ read, write, fileBytes }: CellFiles): string[] {
  const reads = read.flatMap((each) => (typeof each === "string" ? ["-r", each] : ["-r", each[0], "-a", each[1]]));
  // What is shown in a directory that is to be written comes behind it.
  return [...named("-w", write), ...reads, ...named("-f", fileBytes === undefined ? [] : [String(fileBytes)])];
}

function named(option: string, paths: readonly string[]): string[] {
  return paths.flatMap((path) => [option, path]);
}

/** Whether a user of a machine's own can open it: by its group, or as everybody. */
export function opensForOthers(mode: number): boolean {
  return (mode & 0o006) === 0o006 || (mode & 0o060) === 0o060;
}

/** What root needs for machines of other users: their files and sockets, their end, and to find them again. */
const NEEDED = { CAP_CHOWN: 0, CAP_DAC_OVERRIDE: 1, CAP_FOWNER: 3, CAP_KILL: 5, CAP_SYS_PTRACE: 19 };

/** @throws StacyError where QEMU as another user than root would not run, or could not be looked after */
async function assertOtherUsers(): Promise<void> {
  const own = await ownCapabilities();
  const lacks = Object.entries(NEEDED).flatMap(([name, number]) => (own.has(number) ? [] : [name]));
  if (lacks.length > 0)
    throw new StacyError(
      "unavailable",
      `the server is root without ${lacks.join(", ")}, and QEMU would be another user`,
    );
  if ((await kvmState()).mode === "native" && !opensForOthers((await stat(KVM)).mode))
    throw new StacyError(
      "unavailable",
      `${KVM} is open to root alone, and QEMU would be another user in it (chgrp kvm ${KVM} && chmod 660 ${KVM})`,
    );
}

async function find(): Promise<CellState> {
  if (isRoot()) await assertOtherUsers();
  const prebuilt = { program: join(PREBUILT, PROGRAM), preload: join(PREBUILT, READ_ONLY) };
  const cell = (await exists(prebuilt.program)) ? prebuilt : await compiled();
  const args = inCell(cell, { dir: trialDir(cell), read: [], write: [] }, "/usr/bin/env", ["true"]);
  await runTool(cell.program, args, { timeoutMs: TRIAL_MS });
  return { usable: true, cell };
}

/** Where a trial works: it writes nothing, and a directory made for it would stay behind where a server is killed meanwhile. */
export function trialDir({ program }: Cell): string {
  return dirname(program);
}

/** Under the digest of its source, so that a new version never takes the place of one that is being started. */
async function compiled(): Promise<Cell> {
  return compileCell(join(dataPaths().assets, "cell"));
}

export async function compileCell(to: string): Promise<Cell> {
  const sources = await Promise.all(["cell.c", "read-only-memory.c"].map((name) => readFile(join(SOURCE, name))));
  const dir = join(to, createHash("sha256").update(Buffer.concat(sources)).digest("hex").slice(0, 16));
  const cell = { program: join(dir, PROGRAM), preload: join(dir, READ_ONLY) };
  if (await exists(cell.preload)) return cell;
  await mkdir(to, { recursive: true });
  const work = await mkdtemp(join(to, "new-"));
  try {
    const flags = ["-O2", "-s"];
    const compile = (args: string[]): Promise<Buffer> => runTool("cc", args, { package: "gcc", timeoutMs: 60_000 });
    await compile([...flags, "-static", "-o", join(work, PROGRAM), join(SOURCE, "cell.c")]);
    const shared = ["-shared", "-fPIC", "-fvisibility=hidden", "-o", join(work, READ_ONLY)];
    await compile([...flags, ...shared, join(SOURCE, "read-only-memory.c")]);
    // Each machine's user reads it, whatever our umask.
    for (const name of [PROGRAM, READ_ONLY]) await chmod(join(work, name), 0o755);
    // Another process may have been faster.
    await rename(work, dir).catch(async (error: unknown) => {
      if (!(await exists(cell.preload))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return cell;
}
