/** Output of a command as text chunks: UTF-8 that is cut between two chunks stays whole. */
import { StringDecoder } from "node:string_decoder";
import type { Command, ExitStatus, OutputEvent } from "../guest/agent.ts";

export type Chunk =
  | { stream: "stdout" | "stderr"; data: string; time?: string }
  | { type: "lost"; stream: "stdout"; bytes: number; data: "" }
  | { type: "exit"; exit_code: number; signal?: number; reason: ExitStatus["reason"]; data: "" };

export type Encoding = "utf8" | "base64";

/** All chunks, then the exit. Ending the generator early cancels nothing by itself. */
export async function* chunks(
  command: Command,
  exited: Promise<ExitStatus>,
  encoding: Encoding,
): AsyncGenerator<Chunk> {
  yield* withExit(pieces(command.output(), encoding), exited);
}

export async function* withExit(before: AsyncIterable<Chunk>, exited: Promise<ExitStatus>): AsyncGenerator<Chunk> {
  yield* before;
  const status = await exited;
  yield {
    type: "exit",
    exit_code: status.exitCode,
    ...(status.signal === undefined ? {} : { signal: status.signal }),
    reason: status.reason,
    // Clients of the published server take this line for an empty piece of output (rest-api.md, trap 6).
    data: "",
  };
}

/** Output as text, each piece with its time where that is known. */
export async function* pieces(events: AsyncIterable<OutputEvent>, encoding: Encoding): AsyncGenerator<Chunk> {
  const decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
  for await (const event of events) {
    if (event.type === "lost") yield { type: "lost", stream: "stdout", bytes: event.bytes, data: "" };
    else {
      const data = encoding === "base64" ? event.data.toString("base64") : decoders[event.type].write(event.data);
      const time = event.time === undefined ? {} : { time: new Date(event.time).toISOString() };
      if (data !== "") yield { stream: event.type, data, ...time };
    }
  }
  for (const stream of ["stdout", "stderr"] as const) {
    const rest = decoders[stream].end();
    if (rest !== "") yield { stream, data: rest };
  }
}
