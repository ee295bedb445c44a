/** The access of an application in a test: without a configured key, and for connections whose user the test names. */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { Access, type AccessOptions } from "../src/access/access.ts";
import { Audit } from "../src/access/audit.ts";
import { Keys } from "../src/access/keys.ts";
import { Tenants } from "../src/access/tenants.ts";
import type { Store } from "../src/sandboxes/store.ts";

const OWN_UID = process.getuid?.() ?? 0;

/** What a request comes with, beside itself: a connection of this user. */
export function connection(uid = OWN_UID): { incoming: IncomingMessage } {
  return { incoming: { socket: { uid, remoteAddress: "127.0.0.1" } } as unknown as IncomingMessage };
}

export function fakeAccess(store: Store, options: Partial<AccessOptions> & { now?: () => number } = {}) {
  const { now, ...rest } = options;
  const keys = new Keys(store, now);
  const access = new Access({
    ...{ configured: [], keys, ownUser: true },
    peer: async (socket) => (socket as Socket & { uid: number }).uid,
    ...rest,
  });
  const audit = new Audit(store, () => {}); // a full disk, in a test of one
  return { access, audit, keys, tenants: new Tenants(store, keys, 0, now) };
}
