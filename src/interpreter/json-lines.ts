/** The Python driver's wire: a line of JSON for every request and every event, on its standard input and output. */
import { randomBytes } from "node:crypto";
import { Backlog } from "../guest/backlog.ts";
import { StacyError } from "../host/error.ts";
import { assertFits, type CodeEvent, type Conversation, parseEvent } from "./wire.ts";

export function jsonLines(): Conversation {
  let mark: string | undefined;
  // Together, however small the pieces are that it comes in.
  const begun = new Backlog();
  const line = (value: object): Buffer => Buffer.from(`${JSON.stringify(value)}\n`);
  return {
    begin(settings) {
      mark = randomBytes(16).toString("hex");
      return line({ mark, ...settings });
    },
    ask: line,
    read(event) {
      if (event.type !== "stdout") return [];
      const found: CodeEvent[] = [];
      let { data } = event;
      for (;;) {
        if (mark !== undefined && begun.length === 0) data = fromLineOf(mark, data);
        const end = data.indexOf(10);
        if (end === -1) break;
        const rest = data.subarray(0, end);
        const whole = begun.length === 0 ? rest : Buffer.concat([begun.join(), rest]);
        data = data.subarray(end + 1);
        const said = parseEvent(whole);
        if (mark === undefined) {
          if (said === undefined) throw new StacyError("protocol", "the interpreter does not speak its protocol");
          found.push(said.type === "end" ? { type: "end", execution_count: said.count } : said);
        } else if (said?.type === "configured" && said.mark === mark) {
          mark = undefined; // what came before was for somebody else, and its beginning may have been lost
          found.push({ type: "begun" });
        }
      }
      begun.push(0, data);
      assertFits(begun.length);
      return found;
    },
  };
}

/** The guest may write what it likes where the driver does, and a piece has thousands of lines: those before the driver's are not looked at. */
function fromLineOf(mark: string, data: Buffer): Buffer {
  const at = data.indexOf(mark);
  return data.subarray(data.lastIndexOf(10, at === -1 ? data.length : at) + 1);
}
