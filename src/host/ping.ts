/** Whether a host answers ICMP echo. By the system's own `ping`: Node has no socket for it, and `ping` has the rights that it takes. */

import { execFile } from "node:child_process";
import { isIPv4 } from "node:net";
import { errno, StacyError } from "./error.ts";

const WAIT_S = 2;
/** Looking for the program and starting it come on top. */
const LIMIT_MS = 1_000 * WAIT_S + 5_000;

/** @returns whether it answered in time. @throws StacyError `unavailable` when this host cannot ask */
export function ping(address: string): Promise<boolean> {
  const family = isIPv4(address) ? "-4" : "-6";
  return new Promise((resolve, reject) => {
    const args = [family, "-n", "-q", "-c", "1", "-W", String(WAIT_S), "--", address];
    execFile("ping", args, { timeout: LIMIT_MS, env: { PATH: process.env.PATH } }, (cause, _out, stderr) => {
      if (cause === null) resolve(true);
      // 1 is its own word for no answer.
      else if (cause.code === 1) resolve(false);
      else {
        const why = errno(cause) === "ENOENT" ? "there is no `ping` on it" : stderr.trim() || cause.message;
        reject(
          new StacyError("unavailable", `the server's host cannot ask ${address} for an echo: ${why}`, {
            cause,
            remedy: "install the package iputils-ping",
          }),
        );
      }
    });
  });
}
