/**
 * Answers to a guest's questions for names. An allowed name that exists gets the address that stands for it (names.ts); any other name
 * does not exist, at once. What a name really resolves to is no business of the guest: the host connects.
 */
import { type DecodedPacket, decode, encode, type Question, type StringAnswer } from "dns-packet";
import { asStacyError } from "../host/error.ts";
import { normaliseHost } from "./host-rules.ts";
import type { Names } from "./names.ts";

/** Seconds. Short: rules change while a sandbox runs. */
const TTL = 30;
/** Of a message (RFC 1035, 4.1.1), where it counts its sections, and what one question has at most. */
const HEADER = 12;
const COUNTS = 4;
const MOST_QUESTION = 255 + 4;
const RESPONSE = 1 << 15;
const OPCODE = 0x7800;
const RECURSION_DESIRED = 1 << 8;
const RECURSION_AVAILABLE = 1 << 7;
const CODE = { ok: 0, malformed: 1, failed: 2, unknown: 3, notImplemented: 4, refused: 5 } as const;

export interface NameService {
  names: Names;
  /** May programs ask for this name, in its normalised form? Told of what they may not. */
  permit(name: string): boolean;
  /** Rejects with `not-found` for a name that does not exist. */
  resolve(name: string): Promise<unknown>;
}

/** @returns nothing for what is no question: whoever sent it gets no answer */
export async function answerQuestion(message: Buffer, service: NameService): Promise<Buffer | undefined> {
  // The header of anything that is a question; whatever else is wrong with it can be said then.
  if (message.length < HEADER || (message.readUInt16BE(2) & RESPONSE) !== 0) return undefined;
  let query: DecodedPacket;
  try {
    query = decode(questionOf(message));
  } catch {
    return bare(message, CODE.malformed);
  }
  const [question] = query.questions ?? [];
  if (question === undefined) return bare(message, CODE.malformed);
  if ((message.readUInt16BE(2) & OPCODE) !== 0) return bare(message, CODE.notImplemented);
  const { code, answers = [] } = await look(question, service);
  return encode({
    type: "response",
    id: query.id ?? 0,
    flags: ((query.flags ?? 0) & RECURSION_DESIRED) | RECURSION_AVAILABLE | code,
    questions: [question],
    answers,
  });
}

/**
 * The one question of a message, whatever follows it: records that a program adds say nothing here, and thousands of them, each with a
 * name that points to another one, are the work of half a second.
 * @throws when it has none, or several
 */
function questionOf(message: Buffer): Buffer {
  if (message.readUInt16BE(COUNTS) !== 1) throw new Error("not one question");
  const only = Buffer.from(message.subarray(0, HEADER + MOST_QUESTION));
  only.fill(0, COUNTS + 2, HEADER);
  return only;
}

async function look(
  { name: asked, type, class: family = "IN" }: Question,
  { names, permit, resolve }: NameService,
): Promise<{ code: number; answers?: StringAnswer[] }> {
  // Names of the internet are all that there is: servers are asked for their version by another class.
  if (family !== "IN") return { code: CODE.refused };
  const name = normaliseHost(asked);
  const reversed = reversedAddress(name);
  if (reversed !== undefined) {
    const known = names.name(reversed);
    if (known === undefined) return { code: CODE.unknown };
    return { code: CODE.ok, answers: type === "PTR" ? [{ name: asked, type, ttl: TTL, data: known }] : [] };
  }
  if (name === "" || !permit(name)) return { code: CODE.unknown };
  try {
    await resolve(name);
  } catch (thrown) {
    return { code: asStacyError(thrown).code === "not-found" ? CODE.unknown : CODE.failed };
  }
  // It exists; addresses are all that it has here.
  if (type !== "A" && type !== "AAAA") return { code: CODE.ok };
  return { code: CODE.ok, answers: [{ name: asked, type, ttl: TTL, data: names.address(name, type === "A" ? 4 : 6) }] };
}

/** The address that a question for its name is about, as RFC 1035 and RFC 3596 write it; `undefined`: it is about none. */
function reversedAddress(name: string): string | undefined {
  const [, four] = /^((?:\d+\.){4})in-addr\.arpa$/.exec(name) ?? [];
  if (four !== undefined) return four.split(".").slice(0, 4).reverse().join(".");
  const [, six] = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name) ?? [];
  const digits = six?.replaceAll(".", "").split("").reverse().join("");
  return digits === undefined ? undefined : normaliseHost(digits.replace(/.{4}(?=.)/g, "$&:"));
}

/** An answer without any record, for a question that cannot be read. */
function bare(message: Buffer, code: number): Buffer {
  const answer = Buffer.alloc(HEADER);
  message.copy(answer, 0, 0, 2);
  answer.writeUInt16BE(
    RESPONSE | (message.readUInt16BE(2) & (OPCODE | RECURSION_DESIRED)) | RECURSION_AVAILABLE | code,
    2,
  );
  return answer;
}
