/** What a guest's programs send without a connection: questions for names, UDP (flows.ts) and echo (echo.ts), each with its way back. */
import type { Duplex } from "node:stream";
import {
  DATAGRAM_HEADER,
  type Datagram,
  DatagramKind,
  MOST_PAYLOAD,
  payloadLength,
  readDatagram,
  writeDatagram,
} from "./datagram.ts";
import type { Echoes } from "./echo.ts";
import type { Flows } from "./flows.ts";
import { frames } from "./frames.ts";
import type { NameServer } from "./name-server.ts";
import type { Names } from "./names.ts";
import { DNS_PORT } from "./transparent.ts";

export interface DatagramWays {
  names: Names;
  nameServer: NameServer;
  flows: Flows;
  echoes: Echoes;
}

export class Datagrams {
  readonly #ways: DatagramWays;

  constructor(ways: DatagramWays) {
    this.#ways = ways;
  }

  /** Serves them until the channel ends. */
  async serve(channel: Duplex): Promise<void> {
    for await (const bytes of frames(channel, DATAGRAM_HEADER, payloadLength)) this.#take(channel, readDatagram(bytes));
  }

  #take(channel: Duplex, datagram: Datagram): void {
    const { names, nameServer, flows, echoes } = this.#ways;
    const { kind, guest, other, payload } = datagram;
    const answer = (as: number, bytes: Buffer): void => {
      // As on a network, what finds no room is lost.
      if (channel.destroyed || channel.writableNeedDrain || bytes.length > MOST_PAYLOAD) return;
      channel.write(writeDatagram({ kind: as, guest, other, payload: bytes }));
    };
    if (payload.length > MOST_PAYLOAD) return; // no agent of ours sends that
    const host = names.name(other.address) ?? other.address;
    if (kind === DatagramKind.echo) {
      void echoes.send(host, payload, (answered, bytes) =>
        answer(answered ? DatagramKind.echo : DatagramKind.echoRefused, bytes),
      );
    } else if (kind === DatagramKind.udp && other.port === DNS_PORT) {
      void nameServer.question(payload, (bytes) => answer(DatagramKind.udp, bytes));
    } else if (kind === DatagramKind.udp) {
      const key = `${guest.address} ${guest.port} ${other.address} ${other.port}`;
      flows.send(key, { host, port: other.port }, payload, {
        answer: (bytes) => answer(DatagramKind.udp, bytes),
        refuse: () => answer(DatagramKind.udpRefused, Buffer.alloc(0)),
      });
    }
  }
}
