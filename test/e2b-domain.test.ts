/** The domain way: `https://api.D`, `https://<port>-<id>.D` behind the documented proxy, with a wildcard certificate and E2B_DOMAIN alone. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { Server } from "./server-support.ts";

const KEY = `e2b_${"0123456789abcdef".repeat(3).slice(0, 40)}`;
const DOMAIN = "boxes.test";
const NGINX = "/usr/sbin/nginx";
const missing = (await exists(NGINX))
  ? false
  : "no nginx on this host: install nginx-light (not installed by the set-up: it would serve port 80)";

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, "close");
  return port;
}

describe("E2B's clients by their domain alone", { skip: missing, timeout: 300_000 }, () => {
  let server: Server;
  let proxy: ChildProcess;
  let port: number;
  let certificate: string;
  before(async () => {
    server = await Server.create(
      `auth: {api_key: ${KEY}}\nserver: {preview_domain: ${DOMAIN}}\nproviders: {default: qemu}\n`,
    );
    const dir = join(server.root, "proxy");
    await mkdir(dir);
    certificate = join(dir, "certificate.pem");
    const secret = join(dir, "key.pem");
    const names = `subjectAltName=DNS:api.${DOMAIN},DNS:*.${DOMAIN}`;
    const subject = ["-subj", `/CN=${DOMAIN}`, "-addext", names];
    await runTool("openssl", [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      secret,
      "-out",
      certificate,
      "-days",
      "2",
      ...subject,
    ]);
    port = await freePort();
    // As it is documented, with the names and numbers of this test.
    const documented = await readFile(join(packageRoot, "packaging/e2b-nginx.conf"), "utf8");
    const site = documented
      .replaceAll(/\/etc\/ssl\/example\.com\/fullchain\.pem/g, certificate)
      .replaceAll(/\/etc\/ssl\/example\.com\/privkey\.pem/g, secret)
      .replaceAll("example.com", DOMAIN)
      .replace("listen 443", `listen 127.0.0.1:${port}`)
      .replace("http://127.0.0.1:7423", server.url);
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
      (name) => `${name}_temp_path ${dir}/${name};`,
    );
    const config = `daemon off; pid ${dir}/pid; error_log stderr; worker_processes 1;\nevents {}\nhttp { access_log off; ${temporary.join(" ")}\n${site}\n}\n`;
    await writeFile(join(dir, "nginx.conf"), config);
    proxy = spawn(NGINX, ["-c", join(dir, "nginx.conf"), "-e", "stderr"], { stdio: ["ignore", "ignore", "inherit"] });
    for (let answers = false; !answers; ) {
      assert.equal(proxy.exitCode, null, "nginx has ended");
      answers = await new Promise((resolve) => {
        const socket = connect(port, "127.0.0.1", () => resolve(true)).once("error", () =>
          setTimeout(resolve, 50, false),
        );
        socket.once("connect", () => socket.destroy());
      });
    }
  });
  after(async () => {
    if (proxy?.exitCode === null) {
      proxy.kill("SIGTERM");
      await once(proxy, "exit");
    }
    await server?.[Symbol.asyncDispose]();
  });

  for (const sdk of ["e2b", "e2b-2-9"]) {
    test(`${sdk}: sandboxes, streams, files, code, ports`, async () => {
      const { E2B_API_URL: _api, E2B_SANDBOX_URL: _sandbox, ...env } = process.env;
      const out = await runTool(process.execPath, [join(packageRoot, "test/e2b-domain.ts"), sdk], {
        env: { ...env, E2B_DOMAIN: `${DOMAIN}:${port}`, E2B_API_KEY: KEY, NODE_EXTRA_CA_CERTS: certificate },
        timeoutMs: 120_000,
      });
      const { host, ...told } = JSON.parse(out.toString("utf8"));
      assert.match(host, new RegExp(`^8000-sb-[0-9a-f]{8}\\.${DOMAIN}:${port}$`));
      const wanted = {
        content: "served by the sandbox",
        value: "42",
        page: "served by the sandbox",
        closed: 401,
        link: "served by the sandbox",
      };
      assert.deepEqual(told, wanted);
    });
  }
});
