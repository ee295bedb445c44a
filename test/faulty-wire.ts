/** A way between two programs that can be cut, and made slow. */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type NetConnectOpts, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

export class FaultyWire implements AsyncDisposable {
  readonly #server: Server;
  readonly #ends = new Set<Socket>();
  /** Absent: nobody is there. */
  target: NetConnectOpts | undefined;
  /** Each piece waits so long, ms. */
  slowMs = 0;

  private constructor(target: NetConnectOpts | undefined) {
    this.target = target;
    this.#server = createServer({ allowHalfOpen: true }, (near) => this.#join(near));
  }

  static async open(target?: NetConnectOpts): Promise<FaultyWire> {
    const wire = new FaultyWire(target);
    wire.#server.listen(0, "127.0.0.1");
    await once(wire.#server, "listening");
    return wire;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  #join(near: Socket): void {
    if (this.target === undefined) return void near.destroy();
    const far = connect({ ...this.target, allowHalfOpen: true });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#ends.add(from);
      // Pieces keep their order: a wire that gets faster again lets none overtake.
      let before = Promise.resolve();
      const inTurn = (pass: () => unknown): void => {
        before = before.then(async () => {
          if (this.slowMs > 0) await delay(this.slowMs);
          pass();
        });
      };
      from.on("data", (data) => inTurn(() => to.write(data)));
      from.on("end", () => inTurn(() => to.end()));
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.#ends.delete(from);
        to.destroy();
      });
    }
  }

  /** All that go through it now. */
  cut(): void {
    for (const end of this.#ends) end.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.cut();
  }
}
