/** Whose a file is that a build makes: names of the image as numbers. */
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";

/** Names are looked up in the image's own tables; a number without a group is the group's number, too. */
export async function ownerOf(agent: Agent, spec: string, line: number): Promise<{ uid: number; gid: number }> {
  const [user = "", group] = spec.split(":", 2);
  const id = (text: string): number => (/^\d{1,10}$/.test(text) && Number(text) < 2 ** 31 ? Number(text) : Number.NaN);
  const named = user === "" || /^\d+$/.test(user) ? undefined : await lookUp(agent, "/etc/passwd", user);
  const uid = user === "" ? 0 : named === undefined ? id(user) : id(named[2] ?? "");
  const gid =
    group === undefined || group === ""
      ? named === undefined
        ? uid
        : id(named[3] ?? "")
      : /^\d+$/.test(group)
        ? id(group)
        : id((await lookUp(agent, "/etc/group", group))?.[2] ?? "");
  if (Number.isInteger(uid) && Number.isInteger(gid)) return { uid, gid };
  throw new StacyError("not-found", `line ${line}: the image has no owner ${spec}`, {
    remedy: "write numbers, or make the user first",
  });
}

/** Whose a working directory is that is made for a user: one that the image does not know makes it root's, as with BuildKit. */
export async function ownerForUser(
  agent: Agent,
  user: string | undefined,
  line: number,
): Promise<{ uid: number; gid: number }> {
  return await ownerOf(agent, user ?? "0", line).catch((error) => {
    if (error instanceof StacyError && error.code === "not-found") return { uid: 0, gid: 0 };
    throw error;
  });
}

async function lookUp(agent: Agent, table: string, name: string): Promise<string[] | undefined> {
  const text = await agent.readFile(table).catch((error) => {
    if (error instanceof StacyError && error.code === "not-found") return Buffer.alloc(0);
    throw error;
  });
  return text
    .toString("utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .find((fields) => fields[0] === name);
}
