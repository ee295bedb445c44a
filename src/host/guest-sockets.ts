/**
 * Connections that this process makes for programs of guests. Where one of them leads to this server itself, its other end is the
 * server's user by the kernel's word, and a guest by ours.
 */
import type { Socket } from "node:net";

const ends = new Set<string>();

/** @param socket connected: before it is given to anybody */
export function rememberGuests(socket: Socket): void {
  const end = written(socket.localAddress, socket.localPort);
  if (end === undefined) return;
  ends.add(end);
  socket.once("close", () => ends.delete(end));
}

/** Whether the other end of an accepted connection is one of them. */
export function isGuests({ remoteAddress, remotePort }: Socket): boolean {
  const end = written(remoteAddress, remotePort);
  return end !== undefined && ends.has(end);
}

function written(address: string | undefined, port: number | undefined): string | undefined {
  if (address === undefined || port === undefined) return undefined;
  return `${address.replace(/^::ffff:(?=\d+\.)/i, "")} ${port}`;
}
