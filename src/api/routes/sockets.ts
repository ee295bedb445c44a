/**
 * WebSocket endpoints.
 *
 * `exec/ws` knows two protocols. The published one: the first frame is an ExecRequest; the server sends `{stream, data}` frames,
 * `{type: exit, exit_code}`, `{type: done}`, and closes. The richer one begins with a `type` and is that of `terminal`:
 *
 *     client: {type: start, command?, args?, mode?, env?, workdir?, user?, timeout?, stop_signal?,
 *              pty?: bool, rows?, cols?, term?, binary?}
 *             {type: attach, process_id, binary?}
 *             {type: stdin, data, encoding?} | a binary frame    {type: stdin_close}
 *             {type: resize, rows, cols}    {type: signal, signal}    {type: detach}
 *     server: {type: started, process_id, pid}
 *             {type: output, stream, data}, or with `binary` a binary frame: 1 (stdout) or 2 (stderr), then the bytes
 *             {type: exit, exit_code, signal?, reason}    {type: error, code, message}
 *
 * When the client goes away, what it started is cancelled and what it attached to goes on. `resize`, `signal` and `detach` overtake
 * stdin that the command has not taken yet, up to 1 MiB of it; behind more they wait, as everything behind it does. What was not
 * taken before a `detach` is dropped.
 */
import { z } from "@hono/zod-openapi";
import type { Command, ExitStatus } from "../../guest/agent.ts";
import { HeldInput } from "../../guest/held-input.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { JsonBoundError, parseClientJson } from "../../host/json-bounds.ts";
import { push } from "../../host/push.ts";
import { schemaWords } from "../../host/schema-words.ts";
import type { Lease } from "../../sandboxes/sandbox.ts";
import type { View } from "../../sandboxes/view.ts";
import type { RouteParts } from "../context.ts";
import type { Call, Endpoints } from "../endpoint.ts";
import { chunks } from "../output.ts";
import { problemOf } from "../problem.ts";
import { Duration, EnvMap, GuestText, maybe, SandboxId, whole } from "../schemas/common.ts";
import { ExecRequest, execInput, Signal } from "../schemas/exec.ts";
import { defined } from "../schemas/values.ts";
import { acceptSocket, type Message, type Socket, taken } from "../socket.ts";
import { refuseUnknown } from "../unknown-fields.ts";

const tag = "streams";
/** Of stdin that a command has not taken yet, bytes. */
const MOST_STDIN = 1024 * 1024;
const dimension = z.int().min(1).max(65_535);

const Start = z.object({
  type: z.literal("start"),
  command: maybe(GuestText),
  args: maybe(z.array(GuestText)),
  mode: maybe(z.string()),
  env: maybe(EnvMap),
  workdir: maybe(GuestText),
  user: maybe(GuestText),
  timeout: maybe(Duration),
  stop_signal: maybe(Signal),
  pty: maybe(z.boolean()),
  rows: maybe(dimension),
  cols: maybe(dimension),
  term: maybe(z.string().max(64)),
  binary: maybe(z.boolean()),
});
const Control = z.discriminatedUnion("type", [
  Start,
  z.object({ type: z.literal("attach"), process_id: z.string().regex(/^\d{1,20}$/), binary: maybe(z.boolean()) }),
  z.object({ type: z.literal("stdin"), data: z.string(), encoding: maybe(z.enum(["utf8", "base64"])) }),
  z.object({ type: z.literal("stdin_close") }),
  z.object({ type: z.literal("resize"), rows: dimension, cols: dimension }),
  z.object({ type: z.literal("signal"), signal: Signal }),
  z.object({ type: z.literal("detach") }),
]);
type Control = z.output<typeof Control>;

export function socketRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const switching = { 101: { description: "Switching to WebSocket" } };

  /** Takes the socket, runs the conversation, and says its error in the protocol. */
  async function converse(
    { c, sandboxes, params: { id } }: Pick<Call<{ id: string }, unknown, unknown>, "c" | "sandboxes" | "params">,
    work: (socket: Socket, lease: Lease) => Promise<void>,
  ): Promise<Response> {
    const lease = await sandboxes.lease(id); // an unknown sandbox is an ordinary 404, before the upgrade
    let socket: Socket;
    try {
      socket = acceptSocket(c);
    } catch (error) {
      lease[Symbol.dispose]();
      throw error;
    }
    const stop = (): void => socket.close(1001, "the server is stopping");
    parts.stopping.addEventListener("abort", stop, { once: true });
    work(socket, lease)
      .then(() => socket.close(1000))
      .catch(async (error: unknown) => {
        const { body } = problemOf(error, c.get("requestId"));
        // `error` is what clients of the published server look for.
        await socket.json({ type: "error", error: body.message, ...body });
        socket.close(1011, body.message);
      })
      .finally(() => {
        parts.stopping.removeEventListener("abort", stop);
        lease[Symbol.dispose]();
      });
    return taken();
  }

  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/exec/ws",
      scope: "use",
      tag,
      summary: "Run a command over a WebSocket",
      description: "The first frame is an ExecRequest, or `{type: start}` for the protocol of `terminal`.",
      params: SandboxId,
      responses: switching,
      errors: [404, 409],
    },
    (call) =>
      converse(call, async (socket, lease) => {
        const messages = socket.messages();
        const first = await messages.next();
        if (first.done === true) return;
        const value = parse(first.value);
        if (typeof value === "object" && value !== null && "type" in value) {
          return session(call.sandboxes, socket, lease, messages, value, false);
        }
        refuseUnknown(ExecRequest, value);
        const request = ExecRequest.safeParse(value, { error: schemaWords });
        if (!request.success) throw new StacyError("invalid", request.error.issues[0]?.message ?? "not an ExecRequest");
        const { command, exited } = await call.sandboxes.start(lease, execInput(request.data), socket.closed);
        for await (const chunk of chunks(command, exited, request.data.encoding ?? "utf8")) {
          if (!(await socket.json(chunk))) return;
        }
        await socket.json({ type: "done" });
      }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/terminal",
      scope: "use",
      tag,
      summary: "A terminal, or any command with stdin, signals and size, over a WebSocket",
      params: SandboxId,
      responses: switching,
      errors: [404, 409],
    },
    (call) =>
      converse(call, async (socket, lease) => {
        const messages = socket.messages();
        const first = await messages.next();
        if (first.done !== true) await session(call.sandboxes, socket, lease, messages, parse(first.value), true);
      }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/tunnel/{port}",
      scope: "use",
      tag,
      summary: "A TCP connection to a port in the guest, as binary WebSocket frames",
      description:
        "An empty frame from the client ends its side of the connection; what the program in the guest still says comes as before. When the program ends its side, the socket closes.",
      params: SandboxId.extend({ port: whole(1, 65_535) }),
      responses: switching,
      errors: [404, 409],
    },
    (call) =>
      converse(call, async (socket, lease) => {
        const tunnel = await lease.agent.tunnel(call.params.port, { signal: socket.closed });
        tunnel.on("error", () => {}); // the loops below end
        const inward = (async () => {
          for await (const { data, binary } of socket.messages()) {
            // The end of this side alone. What comes after it has nowhere to go.
            if (tunnel.writableEnded) continue;
            if (data.length === 0 && binary) tunnel.end();
            else if (!(await push(tunnel, data))) break;
          }
          tunnel.destroy();
        })();
        try {
          for await (const part of tunnel) if (!(await socket.send(part as Buffer))) break;
        } finally {
          tunnel.destroy();
          socket.close(1000);
          await inward;
        }
      }),
  );

  async function session(
    sandboxes: View,
    socket: Socket,
    lease: Lease,
    messages: AsyncGenerator<Message>,
    first: unknown,
    terminal: boolean,
  ): Promise<void> {
    const begin = control(first);
    const cancel = new AbortController();
    let command: Command;
    let exited: Promise<ExitStatus>;
    let attached = begin.type === "attach";
    if (begin.type === "attach") {
      command = await lease.agent.attach(begin.process_id);
      exited = command.exited;
    } else if (begin.type === "start") {
      // Not tied to the socket: `detach` must be able to leave it running.
      ({ command, exited } = await sandboxes.start(lease, startInput(begin, terminal), cancel.signal));
    } else throw new StacyError("invalid", "the first frame must be start or attach");
    exited.catch(() => {});
    const gone = (): void => {
      if (attached) command.detach().catch(() => {});
      else cancel.abort(new Error("the client went away"));
    };
    if (socket.closed.aborted) gone();
    else socket.closed.addEventListener("abort", gone, { once: true });
    await socket.json({ type: "started", process_id: command.id, pid: command.pid });

    const stdin = new Stdin(command, lease.sandbox.record.owner);
    const input = (async () => {
      for await (const message of messages) {
        const value = message.binary ? undefined : control(parse(message));
        if (value === undefined) await stdin.write(message.data);
        else if (value.type === "stdin") await stdin.write(Buffer.from(value.data, value.encoding ?? "utf8"));
        else if (value.type === "stdin_close") await stdin.close();
        else if (value.type === "resize") await command.resize(value.rows, value.cols);
        else if (value.type === "signal") await command.kill(value.signal);
        else if (value.type === "detach") {
          attached = true;
          await command.detach();
          return "detached" as const;
        } else throw new StacyError("invalid", "a command runs already on this socket");
      }
      return "gone" as const;
    })();
    // A wrong frame ends the conversation with its error, and the command with it.
    const failed = new Promise<never>((_, reject) => {
      input.catch((error: unknown) => {
        // After the end of a command its stdin is closed; a late key stroke is no error.
        if (["invalid", "limit"].includes(asStacyError(error).code)) reject(error);
      });
    });
    failed.catch(() => {});

    const output = (async () => {
      if (begin.binary === true) {
        for await (const event of command.output()) {
          if (event.type === "lost") await socket.json({ type: "lost", bytes: event.bytes });
          else {
            const head = Uint8Array.of(event.type === "stdout" ? 1 : 2);
            if (!(await socket.send(Buffer.concat([head, event.data])))) return;
          }
        }
        const { exitCode, signal, reason } = await exited;
        await socket.json({ type: "exit", exit_code: exitCode, reason, ...defined({ signal }) });
        return;
      }
      for await (const chunk of chunks(command, exited, "utf8")) {
        const sent = "type" in chunk ? chunk : { type: "output", ...chunk };
        if (!(await socket.json(sent))) return;
      }
    })();
    const detached = input.then(
      (end) => (end === "detached" ? undefined : new Promise<never>(() => {})),
      () => new Promise<never>(() => {}),
    );
    output.catch(() => {});
    try {
      await Promise.race([output, failed, detached]);
    } finally {
      socket.closed.removeEventListener("abort", gone);
      if (!attached) cancel.abort();
    }
  }
}

/** A command's stdin: in order, and beside what else the client asks for. */
class Stdin {
  readonly #command: Command;
  readonly #owner: string;
  #waiting = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(command: Command, owner: string) {
    this.#command = command;
    this.#owner = owner;
  }

  /** Resolves at once while there is room, else when the command has taken what was there. @throws StacyError `limit` */
  write(data: Uint8Array): Promise<void> {
    return this.#after(data.length, () => this.#command.write(data));
  }

  close(): Promise<void> {
    return this.#after(0, () => this.#command.closeStdin());
  }

  #after(bytes: number, work: () => Promise<void>): Promise<void> {
    const held = new HeldInput(this.#owner);
    held.add(bytes);
    this.#waiting += bytes;
    this.#tail = this.#tail
      .then(work)
      // After the end of a command its stdin is closed; a late key stroke is no error.
      .catch(() => {})
      .finally(() => {
        this.#waiting -= bytes;
        held[Symbol.dispose]();
      });
    return this.#waiting > MOST_STDIN ? this.#tail : Promise.resolve();
  }
}

function startInput(begin: z.output<typeof Start>, terminal: boolean) {
  const pty = (begin.pty ?? terminal) || begin.rows !== undefined;
  return {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the guest's shell expands it
    command: begin.command ?? (begin.mode === "argv" ? "" : "exec ${SHELL:-sh}"),
    args: begin.args ?? [],
    mode: begin.mode ?? "",
    env: begin.env ?? {},
    stdin: true,
    ...defined({ workdir: begin.workdir, user: begin.user, timeoutMs: begin.timeout, stopSignal: begin.stop_signal }),
    ...(pty ? { pty: { rows: begin.rows ?? 24, cols: begin.cols ?? 80, term: begin.term ?? "xterm-256color" } } : {}),
  };
}

function parse(message: Message): unknown {
  if (message.binary) throw new StacyError("invalid", "the first frame must be JSON text");
  try {
    return parseClientJson(message.data.toString("utf8"));
  } catch (error) {
    throw new StacyError("invalid", `the frame is ${error instanceof JsonBoundError ? error.message : "not JSON"}`);
  }
}

function control(value: unknown): Control {
  const result = Control.safeParse(value, { error: schemaWords });
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new StacyError("invalid", `${issue?.path.join(".") || "frame"}: ${issue?.message ?? "is not valid"}`);
}
