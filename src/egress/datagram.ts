/** Datagrams as the guest's agent hands them over (the page of the format is guest/protocol.ts). */
import { isIPv4 } from "node:net";
import { normaliseHost } from "./host-rules.ts";

export const DATAGRAM_HEADER = 40;
/** Of a payload, bytes. */
export const MOST_PAYLOAD = 16_384;

export const DatagramKind = { udp: 0, echo: 1, udpRefused: 2, echoRefused: 3 } as const;

export interface Endpoint {
  /** In its shortest form. */
  address: string;
  port: number;
}

export interface Datagram {
  kind: number;
  guest: Endpoint;
  other: Endpoint;
  payload: Buffer;
}

const AT = { kind: 2, guest: 4, other: 22 } as const;

/** Of the bytes behind the header, as it says. */
export function payloadLength(header: Buffer): number {
  return header.readUInt16LE();
}

/** @param bytes one datagram, whole */
export function readDatagram(bytes: Buffer): Datagram {
  return {
    kind: bytes.readUInt8(AT.kind),
    guest: readEndpoint(bytes, AT.guest),
    other: readEndpoint(bytes, AT.other),
    payload: bytes.subarray(DATAGRAM_HEADER),
  };
}

export function writeDatagram({ kind, guest, other, payload }: Datagram): Buffer {
  const bytes = Buffer.alloc(DATAGRAM_HEADER + payload.length);
  bytes.writeUInt16LE(payload.length);
  bytes.writeUInt8(kind, AT.kind);
  writeEndpoint(bytes, AT.guest, guest);
  writeEndpoint(bytes, AT.other, other);
  payload.copy(bytes, DATAGRAM_HEADER);
  return bytes;
}

const MAPPED = Buffer.from("00000000000000000000ffff", "hex");

function readEndpoint(bytes: Buffer, at: number): Endpoint {
  const port = bytes.readUInt16LE(at + 16);
  if (bytes.subarray(at, at + 12).equals(MAPPED)) {
    return { address: bytes.subarray(at + 12, at + 16).join("."), port };
  }
  const groups = Array.from({ length: 8 }, (_, group) => bytes.readUInt16BE(at + 2 * group).toString(16));
  return { address: normaliseHost(groups.join(":")), port };
}

function writeEndpoint(bytes: Buffer, at: number, { address, port }: Endpoint): void {
  bytes.writeUInt16LE(port, at + 16);
  if (isIPv4(address)) {
    MAPPED.copy(bytes, at);
    Buffer.from(address.split(".").map(Number)).copy(bytes, at + 12);
    return;
  }
  const [before = [], after = []] = address.split("::").map((half) => half.split(":").filter((group) => group !== ""));
  const zeros = Array<string>(8 - before.length - after.length).fill("0");
  for (const [index, group] of [...before, ...zeros, ...after].entries()) {
    bytes.writeUInt16BE(Number.parseInt(group, 16), at + 2 * index);
  }
}
