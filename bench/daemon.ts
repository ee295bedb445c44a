/** A real daemon in its own process, and a client that costs little beside what is measured. */
import { spawn } from "node:child_process";
import { Agent as HttpAgent, type IncomingHttpHeaders, request } from "node:http";
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";

export interface HttpAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

export type CallHttp = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<HttpAnswer>;

export interface BenchDaemon extends AsyncDisposable {
  call: CallHttp;
  /** The same, of a call that must succeed. @throws Error with the answer */
  ok(...call: Parameters<CallHttp>): Promise<string>;
  /** Of the server. */
  pid: number;
  url: string;
}

/** @param parallel connections that are kept open @param tree whose server: another commit's checkout, or this one */
export async function startDaemon(
  dir: string,
  parallel: number,
  settings: Record<string, string>,
  tree = packageRoot,
): Promise<BenchDaemon> {
  const args = [join(tree, "src/cli/main.ts"), "serve", "--data-dir", dir, "--port", "0"];
  const env = { ...process.env, STACYVM_LOGGING_LEVEL: "warn", ...settings };
  const child = spawn(process.execPath, [...args, "--destroy-on-exit"], {
    stdio: ["ignore", "pipe", "inherit"],
    env,
    cwd: dir,
  });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (text) => {
      out += text;
      const found = /listening on (\S+)/.exec(out)?.[1];
      if (found !== undefined) resolve(found);
    });
    void exited.then(() => reject(new Error("the server did not start")));
  });
  const agent = new HttpAgent({ keepAlive: true, maxSockets: parallel });
  // node:http rather than fetch: it costs less.
  const call: CallHttp = (method, path, body, headers = {}) =>
    new Promise((resolve, reject) => {
      const outgoing = request(`${url}/api/v1${path}`, { method, agent, headers }, (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part));
        response.on("end", () => {
          const { statusCode: status = 0, headers } = response;
          resolve({ status, headers, text: Buffer.concat(parts).toString() });
        });
        response.on("error", reject);
      });
      outgoing.on("error", reject);
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  return {
    call,
    pid: child.pid as number,
    url,
    async ok(method, path, body, headers) {
      const { status, text } = await call(method, path, body, headers);
      if (status >= 300) throw new Error(`${method} ${path}: ${status} ${text.slice(0, 200)}`);
      return text;
    },
    async [Symbol.asyncDispose]() {
      agent.destroy();
      child.kill("SIGTERM");
      await exited;
    },
  };
}
