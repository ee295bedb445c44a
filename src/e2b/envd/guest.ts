/** A sandbox in use by one call of E2B's agent protocol. */
import type { Agent } from "../../guest/agent.ts";
import { isTemplateImage } from "../../images/template-images.ts";
import type { Lease } from "../../sandboxes/sandbox.ts";
import type { View } from "../../sandboxes/view.ts";
import type { E2bParts } from "../parts.ts";
import { Users } from "./users.ts";

/** The sandbox of a request, among what its caller may see. */
export interface Target {
  readonly sandboxes: View;
  readonly id: string;
}

export interface Guest {
  readonly id: string;
  readonly agent: Agent;
  /** Who the call is for; `undefined`: nobody was named. */
  readonly userName: string | undefined;
  users(): Promise<Users>;
  /** The use is over. Idempotent. */
  free(): void;
  /** A use beside this one. @returns ends it */
  hold(): () => void;
}

/** @param signal the client is gone: its guest is asked no more @throws StacyError when the sandbox does not run */
export async function openGuest(
  { images }: Pick<E2bParts, "images">,
  { sandboxes, id }: Target,
  signal: AbortSignal,
  userName?: string,
): Promise<Guest> {
  const lease: Lease = await sandboxes.lease(id);
  const { sandbox, agent } = lease;
  return {
    id,
    agent,
    userName,
    users: async () => {
      const { owner, image: name } = sandbox.record;
      const image = await images
        .of({ name: owner })
        .resolve(name, { pull: "never" })
        .catch(() => undefined);
      const { user, cwd } = image?.config ?? {};
      const template = isTemplateImage(name) ? { template: { ...(cwd === undefined ? {} : { cwd }) } } : {};
      return await Users.read(agent, { ...(user === undefined ? {} : { user }), ...template }, signal);
    },
    free: () => lease[Symbol.dispose](),
    hold: () => {
      const another = sandbox.lease();
      return () => another[Symbol.dispose]();
    },
  };
}

/** The user in an `Authorization: Basic` header, whose password is empty. */
export function userOf(headers: Headers): string | undefined {
  const encoded = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  const [name] = encoded === undefined ? [] : Buffer.from(encoded, "base64").toString("utf8").split(":");
  return name || undefined;
}
