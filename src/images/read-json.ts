import { readFile } from "node:fs/promises";
import { errno, StacyError } from "../host/error.ts";

/** `undefined` when there is none. @throws StacyError `corrupt` when it is no JSON */
export async function readJson(path: string): Promise<unknown> {
  let content: string;
  try {
    content = await readFile(path, "utf8");
  } catch (error) {
    if (errno(error) === "ENOENT" || errno(error) === "ENOTDIR") return undefined;
    throw error;
  }
  try {
    return JSON.parse(content);
  } catch (cause) {
    throw new StacyError("corrupt", `${path} is damaged`, { cause, remedy: "remove the file" });
  }
}
