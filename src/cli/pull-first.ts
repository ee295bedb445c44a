/** A spawn that meets a missing image is silent for as long as its pull takes; asked for before, the pull shows its progress. */
import { type Client, type Image, StacyError } from "../../sdk/src/index.ts";
import { ProgressLine } from "./progress-line.ts";

/** `undefined` when the key may not pull; the spawn then says what it has to say. */
export async function pullFirst(client: Client, image: string, signal: AbortSignal): Promise<Image | undefined> {
  using line = new ProgressLine();
  try {
    return await client.images.pull(image, { pull: "missing", onProgress: line.show, signal });
  } catch (error) {
    if (error instanceof StacyError && error.status === 403) return undefined;
    throw error;
  }
}
