import type { IncomingHttpHeaders } from "node:http";

/** What the head of a request or an answer takes as HTTP/1.1 has it, bytes: a body counts where it is passed on, and many have none. */
export function headBytes(headers: IncomingHttpHeaders, path = ""): number {
  let bytes = path.length;
  for (const [name, value = ""] of Object.entries(headers)) {
    for (const each of [value].flat()) bytes += name.length + each.length + ": \r\n".length;
  }
  return bytes;
}
