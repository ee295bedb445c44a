/**
 * The wire of drivers that leave standard output and error to the code: text goes through as it is, and what the driver says
 * stands among it as NUL, a mark that the code does not know, a space, words, NUL. A piece has ended when both streams say so.
 */
import { randomBytes } from "node:crypto";
import { StringDecoder } from "node:string_decoder";
import { Backlog } from "../guest/backlog.ts";
import { StacyError } from "../host/error.ts";
import { assertFits, type CodeEvent, type CodeRequest, type Conversation, parseEvent, type Wire } from "./wire.ts";

/** Of the words that end a piece: `end` and a status. */
const MOST_END = 64;

/** What a driver is given, without a NUL. */
export interface Words {
  /** For a piece of code. */
  ask(request: CodeRequest): string;
  /** To set variables of the environment for good, and random numbers of its own, unless code of its user has run. @param seed hex */
  settle(env: Record<string, string>, seed: string): string;
}

export function markedStreams(words: Words): Wire {
  return () => new MarkedStreams(words);
}

type Stream = "stdout" | "stderr";

interface Waiting {
  rest: Buffer;
  /** What follows it of words whose end has not come: put together once, since a picture comes in a thousand pieces. */
  more: Backlog;
  /** Of the words so far; 0: what waits are none. */
  length: number;
  text: StringDecoder;
  open: boolean;
}

class MarkedStreams implements Conversation {
  readonly #words: Words;
  #mark = Buffer.alloc(0);
  #waiting: Record<Stream, Waiting> = fresh();
  #beginning = false;
  #status = 0;
  #count = 0;

  constructor(words: Words) {
    this.#words = words;
  }

  begin({ env, seed }: Parameters<Conversation["begin"]>[0]): Buffer {
    this.#beginning = true;
    return this.#marked(this.#words.settle(env, seed));
  }

  ask(request: CodeRequest): Buffer {
    const words = this.#words.ask(request);
    // One in a variable, too, would be the end of the piece.
    if (words.includes("\0")) throw new StacyError("invalid", "the code or a variable has a NUL byte");
    this.#count += 1;
    return this.#marked(words);
  }

  #marked(text: string): Buffer {
    const mark = randomBytes(16).toString("hex");
    this.#mark = Buffer.from(`\0${mark}`);
    this.#waiting = fresh();
    this.#status = 0;
    return Buffer.from(`${mark}\0${text}\0`);
  }

  read(event: Parameters<Conversation["read"]>[0]): CodeEvent[] {
    if (event.type === "lost") return [];
    const found: CodeEvent[] = [];
    const waiting = this.#waiting[event.type];
    if (waiting.length > 0 && event.data.indexOf(0) === -1) {
      waiting.more.push(0, event.data);
      waiting.length += event.data.length;
      assertFits(waiting.length);
      return [];
    }
    let data = waiting.rest.length === 0 ? event.data : Buffer.concat([waiting.rest, waiting.more.join(), event.data]);
    waiting.length = 0;
    for (;;) {
      const at = waiting.open ? data.indexOf(this.#mark) : -1;
      if (at === -1) break;
      this.#say(event.type, data.subarray(0, at), found);
      const from = at + this.#mark.length;
      const end = data.indexOf(0, from);
      if (end === -1) {
        waiting.rest = data.subarray(at);
        waiting.length = waiting.rest.length;
        return found;
      }
      this.#hear(event.type, data.subarray(from, end), found);
      data = data.subarray(end + 1);
    }
    // The beginning of a mark may be its end.
    const nul = data.lastIndexOf(0);
    const kept = nul !== -1 && data.length - nul <= this.#mark.length ? nul : data.length;
    this.#say(event.type, data.subarray(0, kept), found);
    waiting.rest = data.subarray(kept);
    return found;
  }

  #say(stream: Stream, data: Buffer, found: CodeEvent[]): void {
    if (this.#beginning) return; // it was for somebody else
    const text = this.#waiting[stream].text.write(data);
    if (text !== "") found.push({ type: stream, text });
  }

  #hear(stream: Stream, said: Buffer, found: CodeEvent[]): void {
    const [kind, ...rest] = said.toString("latin1", 0, MOST_END).trim().split(" ");
    if (stream === "stdout" && kind !== "end") {
      if (this.#beginning) return;
      const event = parseEvent(said);
      if (event === undefined) throw new StacyError("protocol", "the interpreter does not speak its protocol");
      found.push(event);
      return;
    }
    if (stream === "stdout") this.#status = Number(rest[0]);
    this.#waiting[stream].open = false;
    const { stdout, stderr } = this.#waiting;
    if (stdout.open || stderr.open) return;
    if (this.#beginning) {
      this.#beginning = false;
      found.push({ type: "begun" });
      return;
    }
    if (this.#status !== 0) {
      const value = String(this.#status);
      found.push({ type: "error", name: "ExitStatus", value, traceback: `the last command ended with ${value}` });
    }
    found.push({ type: "end", execution_count: this.#count });
  }
}

function fresh(): Record<Stream, Waiting> {
  const one = (): Waiting => ({
    rest: Buffer.alloc(0),
    more: new Backlog(),
    length: 0,
    text: new StringDecoder("utf8"),
    open: true,
  });
  return { stdout: one(), stderr: one() };
}
