/** A port of this host that leads to a port of a sandbox. */
import { createServer, type Socket } from "node:net";
import type { Sandbox } from "../../sdk/src/index.ts";
import { StacyError } from "../host/error.ts";
import { note, writeTo } from "./output.ts";

export interface Forward {
  /** Where to listen. */
  address: string;
  /** 0: any free one. */
  local: number;
  guest: number;
}

export interface Forwarding {
  /** That it listens on. */
  port: number;
  /** The listener and its connections are gone. */
  close: () => Promise<void>;
}

/** @throws StacyError `unavailable` */
export async function forwardPort(
  sandbox: Sandbox,
  { address, local, guest }: Forward,
  signal: AbortSignal,
): Promise<Forwarding> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket)).on("error", () => {});
    join(sandbox, socket, guest, signal).catch((error: Error) => {
      if (!signal.aborted) note(`port ${guest}: ${error.message}`);
      socket.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => {
    // Stays: a connection that the system could not hand over is told like this, and would end the process.
    server.on("error", (cause) => {
      reject(
        new StacyError("unavailable", `cannot listen on ${address}:${local}: ${cause.message}`, {
          cause,
          remedy: "choose another local port, or 0 for any",
        }),
      );
    });
    server.listen(local, address, resolve);
  });
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : local,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function join(sandbox: Sandbox, socket: Socket, guest: number, signal: AbortSignal): Promise<void> {
  using tunnel = await sandbox.port(guest).connect(signal);
  // Who has gone takes nothing more.
  socket.once("close", () => tunnel.close());
  const inward = (async () => {
    // Its end is not its close: the answer is still to come.
    for await (const part of socket.iterator({ destroyOnReturn: false })) await tunnel.write(part as Uint8Array);
    tunnel.end();
  })();
  inward.catch(() => tunnel.close());
  for await (const part of tunnel) await writeTo(socket as never, part);
  socket.end();
}
