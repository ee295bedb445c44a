/**
 * Several servers as one: how far the fleet's database carries, by a simulation of many nodes, and what another node on the way of a call
 * costs.
 *
 *     --only=NAME,...  of `simulation`, `forwarding`
 *     --nodes=N --sandboxes=N --seconds=S --at-once=N --heartbeat=MS  of the simulation
 *     --n=N            rounds of what is forwarded (default 50)
 */
import { measureForwarding } from "./fleet-forwarding.ts";
import { simulate } from "./fleet-simulation.ts";
import { optionOf, type Suite } from "./harness.ts";

export const suite: Suite = {
  name: "fleet",
  about: "several servers as one: how far their database carries, and what another node on the way of a call costs",
  async run(context) {
    const option = (name: string, otherwise: number): number => Number(optionOf(context.args, name) ?? otherwise);
    const only = optionOf(context.args, "only")?.split(",");
    const wanted = (name: string): boolean => only?.includes(name) ?? true;
    if (wanted("simulation")) {
      await simulate(context, {
        ...{ nodes: option("nodes", 1_000), sandboxes: option("sandboxes", 100_000), seconds: option("seconds", 20) },
        ...{ atOnce: option("at-once", 32), heartbeatMs: option("heartbeat", 10_000) },
      });
    }
    if (wanted("forwarding")) await measureForwarding(context, option("n", 50));
  },
};
