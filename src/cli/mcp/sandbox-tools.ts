/** The sandboxes themselves: further ones, copies, saved states. */
import { z } from "zod";
import { stateWords } from "../state-words.ts";
import type { Session } from "./session.ts";
import { Advice, count, sandboxArgument, type Tools } from "./tool.ts";

const MAX_FORKS = 8;

export function addSandboxTools(tools: Tools, session: Session): void {
  tools.add({
    name: "create_sandbox",
    title: "Make a further sandbox",
    description:
      "Make a further sandbox, apart from the session's own. Needed only for another image, for work that must not meet the first one's, or to begin from a checkpoint.",
    kind: "adds",
    fields: {
      image: z
        .string()
        .optional()
        .describe("For example python:3.12-slim; pulled when it is not here. Default: the session's"),
      checkpoint: z.string().optional().describe("Begin from this saved state instead"),
    },
    work: async ({ image, checkpoint }, call) => {
      if (checkpoint !== undefined) checkKnown(session, checkpoint);
      const { id, info } = await session.create({ image, checkpoint }, call);
      return `${id}: ${info.image}, ${info.vcpus} CPU, ${info.memoryMb} MiB`;
    },
  });
  tools.add({
    name: "list_sandboxes",
    title: "List sandboxes",
    description: "The sandboxes of this session with their state, image and network, and its checkpoints.",
    kind: "looks",
    fields: {},
    work: async (_input, { signal }) => {
      const lines = (await session.refreshed(signal)).map(({ id, info }) => {
        const { image, allowedHosts } = info;
        return `${id}  ${stateWords(info)}  ${image}  network: ${allowedHosts?.join(", ") || "none"}`;
      });
      const saved = [...session.checkpoints.values()].map(({ id, sandboxId, name }) => {
        return `checkpoint ${id} of ${sandboxId}${name === undefined ? "" : `: ${name}`}`;
      });
      return lines.length + saved.length === 0 ? "none yet" : [...lines, ...saved].join("\n");
    },
  });
  tools.add({
    name: "fork_sandbox",
    title: "Copy a sandbox",
    description:
      "Copy a running sandbox with its files, memory and running programs; each copy goes its own way. To try several ways from one state.",
    kind: "adds",
    fields: { sandbox: sandboxArgument, count: count(MAX_FORKS).default(1) },
    work: ({ sandbox, count }, call) =>
      session.use(sandbox, call, async (source) => {
        const copies = await source.fork({ count, ttl: session.options.ttl, signal: call.signal });
        for (const copy of copies) session.add(copy);
        return `copies of ${source.id}: ${copies.map(({ id }) => id).join(", ")}`;
      }),
  });
  tools.add({
    name: "checkpoint_sandbox",
    title: "Save a sandbox's state",
    description:
      "Save files, memory and running programs of a sandbox as they are now; it goes on. To come back: restore_sandbox, or create_sandbox for a further one.",
    kind: "adds",
    fields: { name: z.string().min(1).max(128).optional().describe("What it is, for you"), sandbox: sandboxArgument },
    work: ({ name, sandbox }, call) =>
      session.use(sandbox, call, async (machine) => {
        const checkpoint = await machine.checkpoint(name, { signal: call.signal });
        session.checkpoints.set(checkpoint.id, checkpoint);
        return `checkpoint ${checkpoint.id} of ${machine.id}`;
      }),
  });
  tools.add({
    name: "restore_sandbox",
    title: "Go back to a saved state",
    description: "Set a sandbox back to one of its checkpoints, in place. Everything that came after it is lost.",
    kind: "replaces",
    fields: { checkpoint: z.string(), sandbox: sandboxArgument },
    work: async ({ checkpoint, sandbox }, call) => {
      const { sandboxId } = checkKnown(session, checkpoint);
      return session.use(sandbox ?? sandboxId, call, async (machine) => {
        if (machine.id !== sandboxId) {
          throw new Advice(
            `${checkpoint} is a checkpoint of ${sandboxId}`,
            "restore that one, or make a further sandbox from it with create_sandbox",
          );
        }
        await machine.restore(checkpoint, { signal: call.signal });
        return `${machine.id} is as it was at ${checkpoint}`;
      });
    },
  });
  tools.add({
    name: "destroy_sandbox",
    title: "Remove a sandbox",
    description: "End a sandbox and remove everything of it.",
    kind: "replaces",
    fields: { sandbox: z.string().describe("Its id") },
    work: async ({ sandbox }) => {
      await session.destroy(sandbox);
      return `${sandbox} is gone`;
    },
  });
}

function checkKnown({ checkpoints }: Session, id: string) {
  const found = checkpoints.get(id);
  if (found !== undefined) return found;
  const there = [...checkpoints.keys()].join(", ") || "none";
  throw new Advice(`this session has no checkpoint ${id}; it has ${there}`, "see list_sandboxes");
}
