/** A domain with TLS in front of a server, by the documented nginx: what E2B's clients need who know a sandbox by its host name only. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { freePort } from "./images-support.ts";
import type { Server } from "./server-support.ts";

const NGINX = "/usr/sbin/nginx";
/** Below `localhost`, which also those resolvers find that ask no system (the Rust one of some Python SDKs). */
export const DOMAIN = "boxes.localhost";
/** For a test's `skip`. */
export const noProxy = (await exists(NGINX))
  ? false
  : "no nginx on this host: install nginx-light (not installed by the set-up: it would serve port 80)";

export class Domain implements AsyncDisposable {
  readonly port: number;
  /** For a client: it has to resolve the names below the domain to this host, and to trust the certificate. */
  readonly env: Record<string, string>;
  readonly #proxy: ChildProcess;

  private constructor(port: number, authority: string, proxy: ChildProcess) {
    this.port = port;
    this.env = {
      E2B_DOMAIN: `${DOMAIN}:${port}`,
      NODE_EXTRA_CA_CERTS: authority,
      SSL_CERT_FILE: authority,
    };
    this.#proxy = proxy;
  }

  /** @param server whose `preview_domain` is the domain */
  static async before(server: Server): Promise<Domain> {
    const dir = await mkdtemp(join(server.root, "proxy-"));
    const [authority, certificate, secret] = ["authority.pem", "certificate.pem", "key.pem"].map((name) =>
      join(dir, name),
    ) as [string, string, string];
    // One that signs and one that is shown: some clients take no certificate for both.
    const make = (key: string, out: string, name: string, ...more: string[]): Promise<unknown> => {
      const begin = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", out, "-days", "2"];
      return runTool("openssl", [...begin, "-subj", `/CN=${name}`, ...more.flatMap((each) => each.split(" "))]);
    };
    await make(`${authority}.key`, authority, "authority", "-addext basicConstraints=critical,CA:TRUE");
    const signed = ["-addext basicConstraints=critical,CA:FALSE", `-CA ${authority}`, `-CAkey ${authority}.key`];
    await make(secret, certificate, DOMAIN, `-addext subjectAltName=DNS:api.${DOMAIN},DNS:*.${DOMAIN}`, ...signed);
    const port = await freePort();
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
    const proxy = spawn(NGINX, ["-c", join(dir, "nginx.conf"), "-e", "stderr"], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    for (let answers = false; !answers; ) {
      assert.equal(proxy.exitCode, null, "nginx has ended");
      answers = await new Promise((resolve) => {
        const socket = connect(port, "127.0.0.1", () => resolve(true)).once("error", () =>
          setTimeout(resolve, 50, false),
        );
        socket.once("connect", () => socket.destroy());
      });
    }
    return new Domain(port, authority, proxy);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#proxy.exitCode !== null) return;
    this.#proxy.kill("SIGTERM");
    await once(this.#proxy, "exit");
  }
}
