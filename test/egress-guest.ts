/** A guest's side of an `Egress`, without a machine: what its programs open and send is handed over as its agent would do it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type Duplex, duplexPair } from "node:stream";
import { type Answer, decode, encode, type RecordType } from "dns-packet";
import { type Datagram, DatagramKind, type Endpoint, readDatagram, writeDatagram } from "../src/egress/datagram.ts";
import { Egress, type EgressOptions, type Refused } from "../src/egress/egress.ts";
import { HostRules } from "../src/egress/host-rules.ts";
import { resolverOf } from "../src/egress/resolver.ts";
import { Addresses } from "../src/host/addresses.ts";

const GUEST: Endpoint = { address: "198.19.255.254", port: 40_000 };
const SERVER: Endpoint = { address: "127.0.0.53", port: 53 };

export interface EgressGuestOptions extends Partial<EgressOptions> {
  /** Private addresses that the operator has opened. */
  opened?: string[];
  /** Addresses by name, as the operator may set them. */
  names?: Record<string, string>;
}

/** What is taken from whoever waits for it, or waits itself until somebody does. */
class Handover<T> {
  readonly #takers: ((value: T) => void)[] = [];
  readonly #values: T[] = [];

  get waiting(): number {
    return this.#values.length;
  }

  give(value: T): void {
    const taker = this.#takers.shift();
    if (taker === undefined) this.#values.push(value);
    else taker(value);
  }

  take(signal: AbortSignal): Promise<T> {
    const value = this.#values.shift();
    if (value !== undefined) return Promise.resolve(value);
    return new Promise((settle, reject) => {
      this.#takers.push(settle);
      signal.addEventListener("abort", () => {
        const at = this.#takers.indexOf(settle);
        if (at >= 0) this.#takers.splice(at, 1);
        reject(signal.reason);
      });
    });
  }
}

export class EgressGuest implements Disposable {
  readonly egress: Egress;
  readonly refused: Refused[] = [];
  /** Addresses that answer an echo. */
  answering: string[] = [];
  /** Addresses that were asked for one. */
  readonly pinged: string[] = [];
  readonly #proxied = new Handover<Duplex>();
  readonly #intercepted = new Handover<{ connection: Duplex; address: string; port: number }>();
  readonly #datagrams: Duplex;
  readonly #ends: Duplex[] = [];

  constructor(rules: string[], { opened = ["127.0.0.1"], names = {}, ...options }: EgressGuestOptions = {}) {
    const [mine, theirs] = duplexPair();
    this.#datagrams = mine;
    this.#ends.push(mine);
    let asked = false;
    this.egress = new Egress({
      rules: new HostRules(rules),
      ceiling: new HostRules(["*:*", "*:*/udp"]),
      ping: async (address) => {
        this.pinged.push(address);
        return this.answering.includes(address);
      },
      resolve: resolverOf(names),
      addresses: new Addresses(opened),
      maxConnections: 16,
      idleMs: 60_000,
      guest: {
        accept: (_port, { signal }) => this.#proxied.take(signal),
        intercept: ({ signal }) => this.#intercepted.take(signal),
        datagrams: ({ signal }) => {
          if (!asked) {
            asked = true;
            return Promise.resolve(theirs);
          }
          return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        },
      },
      refused: (each) => this.refused.push(each),
      ...options,
    });
    this.egress.start();
  }

  /** Connections of programs that nobody has taken yet. */
  get waiting(): number {
    return this.#proxied.waiting + this.#intercepted.waiting;
  }

  #pair(): [Duplex, Duplex] {
    const [mine, theirs] = duplexPair();
    mine.on("error", () => {});
    // As the agent would do it: what is cut at one end is cut at the other.
    theirs.once("close", () => theirs.writableFinished || mine.destroy());
    mine.once("close", () => mine.readableEnded || theirs.destroy());
    this.#ends.push(mine);
    return [mine, theirs];
  }

  /** A program's connection to the proxy. */
  proxy(): Duplex {
    const [mine, theirs] = this.#pair();
    this.#proxied.give(theirs);
    return mine;
  }

  /** A program's connection to an address. */
  connect(address: string, port: number): Duplex {
    const [mine, connection] = this.#pair();
    this.#intercepted.give({ connection, address, port });
    return mine;
  }

  async ask(name: string, type: RecordType = "A"): Promise<{ code: number; answers: Answer[] }> {
    const id = Math.floor(Math.random() * 65_536);
    return this.send(encode({ type: "query", id, flags: 0x100, questions: [{ name, type }] }), id);
  }

  async send(question: Buffer, id = question.readUInt16BE()): Promise<{ code: number; answers: Answer[] }> {
    const asked = { kind: DatagramKind.udp, guest: GUEST, other: SERVER };
    const { payload, ...about } = await this.datagram({ ...asked, payload: question });
    assert.deepEqual(about, asked, "the answer goes back to the program that asked");
    const message = decode(payload);
    assert.deepEqual([message.type, message.id], ["response", id]);
    return { code: (message.flags ?? 0) & 15, answers: message.answers ?? [] };
  }

  /** Sends one without waiting for anything. */
  throw(datagram: Datagram): void {
    this.#datagrams.write(writeDatagram(datagram));
  }

  /** A question for a name, of which nobody waits for the answer. */
  throwQuestion(payload: Buffer): void {
    this.throw({ kind: DatagramKind.udp, guest: GUEST, other: SERVER, payload });
  }

  /** @returns what comes back */
  async datagram(datagram: Datagram): Promise<Datagram> {
    const answered = this.next();
    this.throw(datagram);
    return answered;
  }

  /** What comes to a program of itself. */
  async next(): Promise<Datagram> {
    const [data] = (await once(this.#datagrams, "data")) as [Buffer];
    assert.equal(data.readUInt16LE(), data.length - 40);
    return readDatagram(data);
  }

  /** Whatever comes to its programs from now on is not looked at. */
  ignoreDatagrams(): void {
    this.#datagrams.resume();
  }

  /** A program's question for an echo. @returns what comes back */
  echo(address: string): Promise<Datagram> {
    const payload = Buffer.from("id,number,data");
    return this.datagram({
      kind: DatagramKind.echo,
      guest: { ...GUEST, port: 0 },
      other: { address, port: 0 },
      payload,
    });
  }

  /** A datagram of the socket `from` of a program. @returns the kind and the payload of what comes back to it */
  async udp(address: string, at: number, payload: string, from = 40_000): Promise<[number, string]> {
    const about = { guest: { ...GUEST, port: from }, other: { address, port: at } };
    const {
      kind,
      payload: answer,
      ...back
    } = await this.datagram({ ...about, kind: DatagramKind.udp, payload: Buffer.from(payload) });
    assert.deepEqual(back, about);
    return [kind, String(answer)];
  }

  /** Asked as a program does. */
  async address(name: string): Promise<string> {
    const { answers } = await this.ask(name);
    return (answers[0] as { data: string }).data;
  }

  [Symbol.dispose](): void {
    this.egress.stop();
    for (const end of this.#ends) end.destroy();
  }
}
