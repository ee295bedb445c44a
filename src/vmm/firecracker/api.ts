/**
 * Firecracker's API over one kept connection. Its server (micro_http) is small, and so is this client: requests one after
 * the other, always with Content-Length (it reads no chunked bodies), answers of a few bytes.
 *
 * The connection stays open for the life of the machine: its hang-up is the first sign of the process's end.
 */
import type { Socket } from "node:net";
import { MONITOR_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { faultError } from "./faults.ts";

/** Interim answers before one: Firecracker sends none to what we ask. */
const MOST_INTERIM = 8;
const HEAD_END = "\r\n\r\n";

export interface RequestOptions {
  /** Names the phase in errors. */
  phase: string;
  timeoutMs: number;
}

interface Answer {
  status: number;
  body: string;
}

/** The first whole answer in `text`, with what follows it; `undefined` while it is not there yet. @param text latin1 */
export function takeAnswer(text: string): { answer: Answer; rest: string } | undefined {
  const headEnd = text.indexOf(HEAD_END);
  if (headEnd < 0) return undefined;
  const head = text.slice(0, headEnd);
  const length = Number(/^content-length:\s*(\d+)/im.exec(head)?.[1] ?? 0);
  const start = headEnd + HEAD_END.length;
  if (text.length < start + length) return undefined;
  const body = Buffer.from(text.slice(start, start + length), "latin1").toString("utf8");
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? 0);
  return { answer: { status, body }, rest: text.slice(start + length) };
}

export class FirecrackerApi {
  #socket: Socket;
  readonly #reopen: () => Promise<Socket>;
  readonly #why: () => Promise<StacyError>;
  readonly #gone: () => void;
  #over = false;
  #buffer = "";
  #waiting: { settle(answer: Answer): void; fail(error: StacyError): void } | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #broken = false;

  constructor(
    socket: Socket,
    life: {
      /** Another connection, while the process lives: one that broke, or whose answer did not come in time, is replaced by it. */
      reopen(): Promise<Socket>;
      /** What the request under way fails with when its connection is gone. */
      why(): Promise<StacyError>;
      /** Told at once when a connection is gone. */
      gone(): void;
    },
  ) {
    this.#reopen = () => life.reopen();
    this.#why = () => life.why();
    this.#gone = () => life.gone();
    this.#socket = socket;
    this.#follow(socket);
  }

  #follow(socket: Socket): void {
    this.#socket = socket;
    this.#broken = false;
    this.#buffer = "";
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => this.#data(text));
    socket.on("error", () => {});
    // An idle machine must not keep the daemon alive; a request under way has its timer.
    socket.unref();
    socket.once("close", () => {
      if (this.#socket !== socket) return; // another one has taken its place
      this.#broken = true;
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting !== undefined) void this.#why().then((error) => waiting.fail(error));
      this.#gone();
    });
  }

  close(): void {
    this.#over = true;
    this.#socket.destroy();
  }

  put(path: string, body: object, options: RequestOptions): Promise<void> {
    return this.request("PUT", path, body, options).then(() => {});
  }

  patch(path: string, body: object, options: RequestOptions): Promise<void> {
    return this.request("PATCH", path, body, options).then(() => {});
  }

  async get<T>(path: string, options: RequestOptions): Promise<T> {
    const body = await this.request("GET", path, undefined, options);
    try {
      return JSON.parse(body) as T;
    } catch (cause) {
      throw new StacyError("protocol", `Firecracker answered GET ${path} with what is no JSON`, {
        cause,
        phase: options.phase,
      });
    }
  }

  /**
   * The body of the answer.
   * @throws StacyError by `faultError`; `timeout`; `machine-exited` when the process ended without an answer
   */
  request(method: string, path: string, body: object | undefined, options: RequestOptions): Promise<string> {
    const result = this.#queue.then(() => this.#exchange(method, path, body, options));
    this.#queue = result.catch(() => {});
    return result;
  }

  async #exchange(
    method: string,
    path: string,
    body: object | undefined,
    { phase, timeoutMs }: RequestOptions,
  ): Promise<string> {
    if (this.#broken) {
      const over = (): StacyError =>
        new StacyError("machine-exited", "Firecracker's API connection is gone", { phase });
      if (this.#over) throw over();
      this.#follow(await this.#reopen());
      if (this.#over) {
        this.#socket.destroy(); // closed while it was opened anew
        throw over();
      }
    }
    const answer = await new Promise<Answer>((settle, fail) => {
      const timer = setTimeout(() => {
        this.#waiting = undefined;
        // The answer may still come and would be taken for the next request's. Not with the close's event: it comes later.
        this.#broken = true;
        this.#socket.destroy();
        fail(new StacyError("timeout", `Firecracker did not answer ${method} ${path} in ${timeoutMs} ms`, { phase }));
      }, timeoutMs);
      this.#waiting = {
        settle: (value) => {
          clearTimeout(timer);
          settle(value);
        },
        fail: (error) => {
          clearTimeout(timer);
          fail(error.inPhase(phase));
        },
      };
      const text = body === undefined ? "" : JSON.stringify(body);
      const length = body === undefined ? "" : `Content-Length: ${Buffer.byteLength(text)}\r\n`;
      this.#socket.write(
        `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n${length}\r\n${text}`,
      );
    });
    if (answer.status >= 200 && answer.status < 300) return answer.body;
    throw faultError(faultMessage(answer), phase);
  }

  /** A Firecracker that its guest has taken over says whatever that likes: what is too long, and what nobody asked for, ends the connection. */
  #data(text: string): void {
    this.#buffer += text;
    for (let interim = 0; ; interim++) {
      if (this.#waiting === undefined || interim > MOST_INTERIM) break;
      const taken = takeAnswer(this.#buffer);
      if (taken === undefined) {
        if (this.#buffer.length > MONITOR_BOUNDS.answerBytes) break;
        return;
      }
      this.#buffer = taken.rest;
      if (taken.answer.status === 100) continue;
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting.settle(taken.answer);
      if (this.#buffer === "") return;
    }
    this.#buffer = "";
    this.#broken = true;
    this.#socket.destroy();
  }
}

/** `fault_message`, or `error` (what the connection limit answers with), or the bare text. */
export function faultMessage({ status, body }: Answer): string {
  try {
    const parsed = JSON.parse(body) as { fault_message?: unknown; error?: unknown };
    const words = parsed.fault_message ?? parsed.error;
    return shortened(typeof words === "string" ? words : body);
  } catch {
    return body === "" ? `status ${status}` : shortened(body);
  }
}

function shortened(words: string): string {
  return words.slice(0, MONITOR_BOUNDS.errorBytes);
}
