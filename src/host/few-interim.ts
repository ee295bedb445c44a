/** Interim answers (1xx) that come before an answer: whoever answers could send them for ever. */
import type { ClientRequest } from "node:http";
import type { ClientHttp2Stream } from "node:http2";

const MOST_INTERIM = 64;

/** More of them are the end of the request. */
export function fewInterim(asked: ClientRequest | ClientHttp2Stream): void {
  let interim = 0;
  const count = (): void => {
    interim += 1;
    if (interim > MOST_INTERIM) asked.destroy(new Error("it sends one interim answer after another"));
  };
  asked.on("information", count); // HTTP/1.1
  asked.on("headers", count); // HTTP/2
}
