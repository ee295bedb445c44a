import { createSocket, type RemoteInfo } from "node:dgram";
import { once } from "node:events";

/** A UDP server of a test: each datagram is answered, if `answer` has one, from the port that was asked. */
export class UdpServer implements AsyncDisposable {
  readonly #socket = createSocket("udp4");

  static async open(
    address: string,
    answer: (payload: Buffer, from: RemoteInfo) => Buffer | string | undefined,
  ): Promise<UdpServer> {
    const server = new UdpServer();
    server.#socket.on("message", (payload, from) => {
      const said = answer(payload, from);
      if (said !== undefined) server.#socket.send(said, from.port, from.address);
    });
    server.#socket.bind(0, address);
    await once(server.#socket, "listening");
    return server;
  }

  get port(): number {
    return this.#socket.address().port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await once(this.#socket, "close");
  }
}
