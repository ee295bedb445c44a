/** Other hosts that it may connect to; the guest learns what its programs need to know of it. */
import { networkEnvironment, PROXY_ENVIRONMENT } from "../../egress/network.ts";
import type { MachineRecord } from "../../launcher/machine-dir.ts";
import type { MachineLife } from "../machine-life.ts";

export async function allow(life: MachineLife, hosts: readonly string[]): Promise<void> {
  const { record } = life;
  const rules = life.context.network.rules(hosts);
  const { allowedHosts = [] } = record;
  const { env } = record.identity;
  setHosts(record, hosts, networkEnvironment(hosts, env));
  try {
    await life.recordFile.write(record.state);
    // One that does not run learns its environment when it runs again.
    if (life.now.state === "running") await life.identify();
  } catch (error) {
    setHosts(record, allowedHosts, env);
    await life.recordFile.correct(record.state);
    throw error;
  }
  life.egress.allow(rules);
}

function setHosts(record: MachineRecord, hosts: readonly string[], env: Record<string, string>): void {
  const { identity } = record;
  identity.env = { ...env };
  if (hosts.length > 0) record.allowedHosts = [...hosts];
  else {
    delete record.allowedHosts;
    const ours = Object.entries(PROXY_ENVIRONMENT);
    for (const [name, value] of ours) if (identity.env[name] === value) delete identity.env[name];
  }
}
