/** Changes of one or of many sandboxes, a few at a time: a browser has six connections to a server, and one is for what happens. */
import type { Sandbox, SandboxInfo } from "../../../sdk/src/index.ts";
import { confirmed } from "../parts/confirm.ts";
import { count } from "./format.ts";
import type { Live } from "./live.ts";
import { notes, textOf } from "./notes.ts";
import { nameOf, type Verb } from "./states.ts";

const AT_ONCE = 3;

const WORK: Record<Verb, (sandbox: Sandbox) => Promise<unknown>> = {
  pause: (sandbox) => sandbox.pause(),
  suspend: (sandbox) => sandbox.suspend(),
  resume: (sandbox) => sandbox.resume(),
  fork: (sandbox) => sandbox.fork(),
  checkpoint: (sandbox) => sandbox.checkpoint(),
  extend: (sandbox) => sandbox.extend("30m"),
  remove: (sandbox) => sandbox.destroy(),
};
const DONE: Record<Verb, string> = {
  pause: "Paused",
  suspend: "Suspended",
  resume: "Resumed",
  fork: "Forked",
  checkpoint: "Saved a checkpoint of",
  extend: "30 minutes from now for",
  remove: "Removed",
};

/** Says what was done, and what of it failed. */
export async function changeAll(live: Live, infos: readonly SandboxInfo[], verb: Verb): Promise<void> {
  const failed: string[] = [];
  await atOnce(infos, async (info) => {
    try {
      await WORK[verb](await live.client.get(info.id));
    } catch (error) {
      // Somebody else was faster.
      if (verb === "remove" && (error as { status?: number }).status === 404) return;
      failed.push(`${nameOf(info)}: ${textOf(error)}`);
    }
  });
  await live.refresh();
  const [only] = infos;
  const done = infos.length - failed.length;
  const what = infos.length === 1 && only !== undefined ? nameOf(only) : count(done, "sandbox", "sandboxes");
  if (done > 0) notes.say(`${DONE[verb]} ${what}.`);
  if (failed.length > 0)
    notes.fail(
      failed.length > 3 ? `${failed.slice(0, 3).join("; ")}; and ${failed.length - 3} more` : failed.join("; "),
    );
}

/** Asks first. @returns whether it was done */
export async function removeAll(live: Live, infos: readonly SandboxInfo[]): Promise<boolean> {
  const [only] = infos;
  const one = infos.length === 1 && only !== undefined;
  const yes = await confirmed({
    title: one ? `Remove ${nameOf(only)}?` : `Remove ${infos.length} sandboxes?`,
    text: "Their programs end, and their files are gone. Checkpoints stay."
      .replace("Their", one ? "Its" : "Their")
      .replace("their", one ? "its" : "their"),
    word: one ? nameOf(only) : String(infos.length),
    verb: one ? "Remove" : `Remove ${infos.length}`,
  });
  if (yes) await changeAll(live, infos, "remove");
  return yes;
}

export async function atOnce<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const left = [...items];
  const next = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
}
