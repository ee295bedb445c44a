/** Names below E2B_DOMAIN are this host's, as a name server would say. Imported before a client by programs that know a domain. */
import dns from "node:dns";
import { syncBuiltinESMExports } from "node:module";

const domain = `.${(process.env.E2B_DOMAIN ?? "").replace(/:\d+$/, "")}`;
const lookup = dns.lookup;
dns.lookup = ((host: string, ...rest: [never]) =>
  lookup(host.endsWith(domain) ? "127.0.0.1" : host, ...rest)) as typeof dns.lookup;
syncBuiltinESMExports();
