import type { Checkpoint, Client } from "../../sdk/src/index.ts";
import { StacyError } from "../host/error.ts";

/** By id, or by the name that it was saved under. @throws StacyError `not-found`, `invalid` where several have the name */
export async function findCheckpoint(client: Client, name: string, signal?: AbortSignal): Promise<Checkpoint> {
  const all = await client.checkpoints.list({ signal });
  const byId = all.find(({ id }) => id === name);
  if (byId !== undefined) return byId;
  const [found, ...others] = all.filter((checkpoint) => checkpoint.name === name);
  const remedy = "see `stacyvm checkpoint ls`";
  if (found === undefined) {
    throw new StacyError("not-found", `there is no checkpoint ${JSON.stringify(name)}`, { remedy });
  }
  if (others.length > 0) {
    const ids = [found, ...others].map(({ id }) => id).join(", ");
    throw new StacyError("invalid", `${others.length + 1} checkpoints are called ${name}: ${ids}`, { remedy });
  }
  return found;
}
