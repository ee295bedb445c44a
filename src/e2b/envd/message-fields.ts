/**
 * How many fields a protobuf message has: that is what takes time to read, not its bytes. The library has no bound on them, and
 * reads a field that may come once as often as it comes.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import { JSON_BOUNDS } from "../../host/bounds.ts";

/** @throws ConnectError for too many, and for groups, which none of our messages has. What is no message is for the library to refuse */
export function assertFewFields(bytes: Uint8Array, type: DescMessage): void {
  try {
    count(new BinaryReader(bytes), bytes.length, type, { left: JSON_BOUNDS.clientValues });
  } catch (error) {
    if (error instanceof ConnectError) throw error;
  }
}

/** @param type `undefined`: nothing in it is a message */
function count(reader: BinaryReader, end: number, type: DescMessage | undefined, fields: { left: number }): void {
  while (reader.pos < end) {
    if (fields.left-- === 0) throw invalid(`a message of more than ${JSON_BOUNDS.clientValues} fields`);
    const [number, wire] = reader.tag();
    if (wire === WireType.StartGroup) throw invalid("a group in a message");
    const inner = wire === WireType.LengthDelimited ? innerOf(type, number) : undefined;
    if (inner === undefined) reader.skip(wire, number);
    else count(reader, reader.uint32() + reader.pos, inner.type, fields);
  }
}

/** What a field holds, if that has fields too: a message, or an entry of a map. */
function innerOf(type: DescMessage | undefined, number: number): { type: DescMessage | undefined } | undefined {
  const field = type?.fields.find((each) => each.number === number);
  if (field?.message !== undefined) return { type: field.message };
  return field?.fieldKind === "map" ? { type: undefined } : undefined;
}

function invalid(words: string): ConnectError {
  return new ConnectError(words, Code.InvalidArgument);
}
