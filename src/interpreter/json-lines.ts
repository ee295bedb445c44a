/** The Python driver's wire: a line of JSON for every request and every event, on its standard input and output. */
import { randomBytes } from "node:crypto";
import { StacyError } from "../host/error.ts";
import { type CodeEvent, type Conversation, parseEvent } from "./wire.ts";

/** One line: a picture in base64 and what belongs to it. */
const MAX_LINE = 64 << 20;

export function jsonLines(): Conversation {
  let mark: string | undefined;
  let parts: Buffer[] = [];
  let length = 0;
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
      for (let end = data.indexOf(10); end !== -1; end = data.indexOf(10)) {
        parts.push(data.subarray(0, end));
        // The guest may write what it likes where the driver does.
        const said = parseEvent(Buffer.concat(parts).toString("utf8"));
        parts = [];
        length = 0;
        data = data.subarray(end + 1);
        if (mark === undefined) {
          if (said === undefined) throw new StacyError("protocol", "the interpreter does not speak its protocol");
          found.push(said.type === "end" ? { type: "end", execution_count: said.count } : said);
        } else if (said?.type === "configured" && said.mark === mark) {
          mark = undefined; // what came before was for somebody else, and its beginning may have been lost
          found.push({ type: "begun" });
        }
      }
      length += data.length;
      if (length > MAX_LINE) throw new StacyError("limit", "a result of the interpreter is too large");
      parts.push(data);
      return found;
    },
  };
}
