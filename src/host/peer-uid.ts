/**
 * Which user runs the other end of a TCP connection of this host: what `/proc/net/tcp` and `tcp6` say of the client's socket
 * (proc(5); columns as in the kernel's Documentation/networking/proc_net_tcp.rst).
 */
import { readFile } from "node:fs/promises";
import { isIPv6, type Socket } from "node:net";
import { endianness } from "node:os";

/** @returns `undefined` when the kernel knows no such open socket here */
export async function peerUid(socket: Socket): Promise<number | undefined> {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  if (localAddress === undefined || localPort === undefined) return undefined;
  const [client, server] = [bytesOf(remoteAddress), bytesOf(localAddress)];
  // A client's IPv6 socket may speak IPv4 (::ffff:127.0.0.1): then it is in the other table than ours.
  const ends = (form: (bytes: number[]) => string): [string, string] => [
    `${form(client)}:${hexPort(remotePort)}`,
    `${form(server)}:${hexPort(localPort)}`,
  ];
  // The table is read in pieces; a row that moves between them is missed, so once more.
  for (let i = 0; i < 2; i++) {
    const found = (await lookUp("/proc/net/tcp", ends(inTcp))) ?? (await lookUp("/proc/net/tcp6", ends(inTcp6)));
    if (found !== undefined) return found;
  }
  return undefined;
}

async function lookUp(path: string, [local, remote]: [string, string]): Promise<number | undefined> {
  const table = await readFile(path, "latin1").catch(() => "");
  return uidIn(table, local, remote);
}

/** @param local,remote as the table writes them; the row is the client's, so `local` is its end */
export function uidIn(table: string, local: string, remote: string): number | undefined {
  const at = table.indexOf(` ${local} ${remote} `);
  if (at < 0) return undefined;
  const [, , , , , , uid, , inode] = table.slice(at + 1, table.indexOf("\n", at)).split(/\s+/);
  // A socket that its program has closed already belongs to nobody, and its row says 0, as if it were root's.
  if (uid === undefined || inode === undefined || inode === "0") return undefined;
  return Number(uid);
}

/** 16 bytes; IPv4 as `::ffff:a.b.c.d`. */
function bytesOf(address: string): number[] {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
  if (!isIPv6(plain)) return [...Array<number>(10).fill(0), 255, 255, ...plain.split(".").map(Number)];
  const [head = "", tail] = plain.split("::");
  const groups = (text: string | undefined): number[] =>
    text ? text.split(":").map((group) => Number.parseInt(group, 16)) : [];
  const [before, after] = [groups(head), groups(tail)];
  const middle = Array<number>(8 - before.length - after.length).fill(0);
  return [...before, ...middle, ...after].flatMap((group) => [group >> 8, group & 255]);
}

function inTcp6(bytes: number[]): string {
  return [0, 4, 8, 12].map((at) => word(bytes.slice(at, at + 4))).join("");
}

function inTcp(bytes: number[]): string {
  return word(bytes.slice(12));
}

/** The kernel prints each 32-bit word as a number of the host. */
function word(bytes: number[]): string {
  const ordered = endianness() === "LE" ? [...bytes].reverse() : bytes;
  return Buffer.from(ordered).toString("hex").toUpperCase();
}

function hexPort(port: number): string {
  return port.toString(16).toUpperCase().padStart(4, "0");
}
