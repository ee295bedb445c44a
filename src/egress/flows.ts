/**
 * UDP of a guest: what one of its sockets sends to one address and port goes out by a socket of ours that is connected to the host, and
 * what comes from there goes back. It is over when nothing has gone either way for a while.
 */
import type { Socket } from "node:dgram";
import { DATAGRAM_BOUNDS } from "../host/bounds.ts";
import { asStacyError, errno, type StacyError } from "../host/error.ts";
import type { Permit, Target } from "./connections.ts";
import { Held } from "./held.ts";
import type { Meter } from "./meter.ts";

/** Nothing either way for so long, ms (RFC 4787, 4.3, has two minutes; programs that need it longer keep it alive more often). */
const IDLE_MS = 120_000;
/** Nobody listens at the host, or no way leads there: for the program it is as where the rules refuse it. */
const NOBODY = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"]);

export interface FlowOptions {
  meter: Meter;
  /** At once: the one that nothing was sent over for longest goes. */
  most: number;
  /** A flow over which nothing went for so long is over, ms. */
  idleMs?: number;
  /** A socket that is connected to the target. @throws StacyError when it cannot or may not be reached */
  dial(target: Target): Promise<Socket>;
  /** Told of each flow when it begins, and of what ends it. */
  tell(target: Target, failure?: StacyError): void;
}

/** Where answers go. */
export interface FlowReply {
  answer(payload: Buffer): void;
  /** Nobody takes what is sent there. */
  refuse(): void;
}

interface Flow {
  target: Target;
  reply?: FlowReply;
  idle: NodeJS.Timeout;
  socket?: Socket;
  held: Buffer[];
}

export class Flows {
  readonly #options: FlowOptions;
  /** The one that something was sent over longest ago first. */
  readonly #flows = new Map<string, Flow>();
  readonly #held = new Held();
  #connecting = 0;

  constructor(options: FlowOptions) {
    this.#options = options;
  }

  get open(): number {
    return this.#flows.size;
  }

  /** @param key tells the guest's socket and the address that it sends to */
  send(key: string, target: Target, payload: Buffer, reply: FlowReply): void {
    const flow = this.#flows.get(key) ?? this.#begin(key, target);
    if (flow === undefined) return;
    this.#flows.delete(key);
    this.#flows.set(key, flow);
    flow.reply = reply;
    flow.idle.refresh();
    if (flow.socket !== undefined) this.#pass(key, flow, flow.socket, payload);
    else {
      const held = this.#held.take(payload);
      if (held !== undefined) flow.held.push(held);
    }
  }

  /** Ends those that `permit` no longer permits. */
  cut(permit: Permit): void {
    for (const [key, flow] of this.#flows) {
      const address = flow.socket?.remoteAddress().address;
      if (!permit(flow.target, address)) this.#refuse(key, flow);
    }
  }

  close(): void {
    for (const [key, flow] of this.#flows) this.#end(key, flow);
  }

  #begin(key: string, target: Target): Flow | undefined {
    const { most } = this.#options;
    // One that had to go is looked up and connected to its end.
    if (this.#connecting >= most) return undefined;
    const [oldest] = this.#flows;
    if (oldest !== undefined && this.#flows.size >= most) this.#end(...oldest);
    const idle = setTimeout(() => this.#end(key, flow), this.#options.idleMs ?? IDLE_MS).unref();
    const flow: Flow = { target, idle, held: [] };
    this.#flows.set(key, flow);
    void this.#connect(key, flow);
    return flow;
  }

  async #connect(key: string, flow: Flow): Promise<void> {
    const { dial, tell } = this.#options;
    this.#connecting += 1;
    try {
      const socket = await dial(flow.target).finally(() => {
        this.#connecting -= 1;
      });
      socket.on("error", () => this.#refuse(key, flow));
      if (this.#flows.get(key) !== flow) {
        socket.close();
        return;
      }
      tell(flow.target);
      flow.socket = socket;
      socket.on("message", (payload) => {
        flow.idle.refresh();
        if (this.#passes(key, flow, "received", payload.length)) flow.reply?.answer(payload);
      });
      for (const payload of this.#release(flow)) this.#pass(key, flow, socket, payload);
    } catch (thrown) {
      tell(flow.target, asStacyError(thrown));
      this.#refuse(key, flow);
    }
  }

  #pass(key: string, flow: Flow, socket: Socket, payload: Buffer): void {
    // One before it in the same row may have ended the flow; then the socket is closed.
    if (this.#flows.get(key) !== flow || waiting(socket) > DATAGRAM_BOUNDS.heldBytes) return;
    if (!this.#passes(key, flow, "sent", payload.length)) return;
    socket.send(payload, (failure) => {
      if (NOBODY.has(errno(failure) ?? "")) this.#refuse(key, flow);
    });
  }

  #release(flow: Flow): Buffer[] {
    for (const payload of flow.held) this.#held.giveBack(payload);
    return flow.held.splice(0);
  }

  #passes(key: string, flow: Flow, direction: "sent" | "received", bytes: number): boolean {
    if (this.#flows.get(key) !== flow) return false;
    try {
      return this.#options.meter.lets(direction, bytes);
    } catch (thrown) {
      this.#options.tell(flow.target, asStacyError(thrown));
      this.#refuse(key, flow);
      return false;
    }
  }

  #refuse(key: string, flow: Flow): void {
    if (this.#end(key, flow)) flow.reply?.refuse();
  }

  #end(key: string, flow: Flow): boolean {
    if (this.#flows.get(key) !== flow) return false;
    this.#flows.delete(key);
    this.#release(flow);
    clearTimeout(flow.idle);
    flow.socket?.close();
    return true;
  }
}

/** Bytes that wait for room in it. */
function waiting(socket: Socket): number {
  return socket.getSendQueueSize() + DATAGRAM_BOUNDS.overheadBytes * socket.getSendQueueCount();
}
