/** Sandboxes of other nodes that shall move to this one: whether they can, what they need, and their taking. */
import type { z } from "zod";
import { StacyError } from "../../host/error.ts";
import type { SandboxRecord } from "../../sandboxes/record.ts";
import type { Sandboxes } from "../../sandboxes/sandboxes.ts";
import type { PackedMachine } from "../../sandboxes/transits.ts";
import type { Between } from "../between.ts";
import type { Directory, FleetNode, Ownership } from "../contract.ts";
import { pathsOf } from "../transfer/goldens.ts";
import { contentOf } from "../transfer/pieces.ts";
import type { Rate } from "../transfer/rate.ts";
import { sendThings, sourceOf, type Thing } from "../transfer/things.ts";
import { type Received, receive } from "../transfer/transfer.ts";
import { GOOD_MS } from "../trust/assertions.ts";
import { hasSchema, imageAnswer, imageSchema, inquirySchema, type Offer, offerSchema } from "./offer.ts";

/** For a node to read an image and say what is in it. */
const IMAGE_MS = 300_000;

const SANDBOX_ID = /^sb-[0-9a-f]{8}$/;
/** Beside memory and disk: device state, headers, journals. */
const EXTRA_BYTES = 256 * 2 ** 20;

type ImageAbout = Omit<z.infer<typeof imageAnswer>, "content">;

/** The content of images, by digest. */
export interface ImageContents {
  has(digest: string): Promise<boolean>;
  /** `undefined`: it is not here. */
  content(digest: string): Promise<(ImageAbout & { base: string }) | undefined>;
  /** @param fill makes the base at that path, whole and on disk */
  receive(digest: string, about: ImageAbout, fill: (path: string) => Promise<void>): Promise<void>;
}

export interface ArrivalsParts {
  directory: Directory;
  between: Between;
  sandboxes: Sandboxes;
  images: ImageContents;
  rate: Rate;
  registry: { take(record: SandboxRecord, from: Pick<Ownership, "nodeId" | "epoch">): Promise<boolean> };
}

export class Arrivals {
  readonly #parts: ArrivalsParts;
  /** Images that are on their way here, by digest. */
  readonly #coming = new Map<string, Promise<void>>();

  constructor(parts: ArrivalsParts) {
    this.#parts = parts;
    const { between, sandboxes, images, rate } = parts;
    sendThings(between, rate, (thing, from) => this.#find(thing, from));
    between.on("inquiry", async (body, { from }) => {
      const { sandbox, packed } = inquirySchema.parse(body);
      this.#assertFits(sandbox, packed);
      const differs = await sandboxes.transits.travelOf(sandbox).differences(packed);
      if (differs.length === 0) await this.#image(packed, from);
      return { differs };
    });
    between.on("offer", (body, { from, signal }) => this.#take(offerSchema.parse(body), from, signal));
    between.on("has", async (body, { from }) => ({ is: await this.#has(hasSchema.parse(body), from) }));
    between.on("image", async (body, { signal }) => {
      const { digest } = imageSchema.parse(body);
      const found = await images.content(digest);
      if (found === undefined) throw new StacyError("not-found", `the image ${digest} is not here`);
      const { config, blobs, base } = found;
      return { config, blobs, content: await contentOf(base, signal) };
    });
  }

  /** What another node says is not believed where it would cost this one more than the sandbox is. @throws StacyError */
  #assertFits(sandbox: SandboxRecord, { record }: PackedMachine): void {
    const { sandboxes } = this.#parts;
    const named = SANDBOX_ID.test(sandbox.id) && record.id === sandbox.id && record.vmm === sandbox.provider;
    if (!named || record.directories !== undefined) {
      throw new StacyError("protocol", `what is said of the machine of sandbox ${sandbox.id} is not of one that moves`);
    }
    sandboxes.transits.assertTravels(sandbox);
    sandboxes.assertPlace(sandbox);
  }

  async #find(thing: Thing, from: FleetNode): Promise<string> {
    const { sandboxes, images } = this.#parts;
    if (thing.kind === "image") {
      const found = await images.content(thing.digest);
      if (found !== undefined) return found.base;
      throw new StacyError("not-found", `the image ${thing.digest} is not here`);
    }
    if (thing.kind === "golden") {
      const path = (await pathsOf(sandboxes, thing.key))[thing.file];
      if (path !== undefined) return path;
      throw new StacyError("not-found", `a golden snapshot has no ${thing.file}`);
    }
    const { record } = sandboxes.get(thing.id);
    // To whom it was offered, and nobody else.
    if (record.state !== "suspended" || record.transit?.is !== "leaving" || record.transit.node !== from.id) {
      throw new StacyError("conflict", `sandbox ${thing.id} is not offered to ${from.name}`);
    }
    return sandboxes.transits.travelOf(record).file(thing.id, thing.file);
  }

  /** Gets the image that a machine stands on, if it is not here, from whichever nodes have it. */
  async #image({ record: { guest, imageDigest: digest } }: PackedMachine, from: FleetNode): Promise<void> {
    // The bare guest's are made wherever they are asked for.
    if (guest === "bare" || (await this.#parts.images.has(digest))) return;
    let coming = this.#coming.get(digest);
    if (coming === undefined) {
      coming = this.#bring(digest, from).finally(() => this.#coming.delete(digest));
      this.#coming.set(digest, coming);
    }
    await coming;
  }

  async #bring(digest: string, from: FleetNode): Promise<void> {
    const { between, images, directory } = this.#parts;
    const signal = AbortSignal.timeout(IMAGE_MS);
    const { config, blobs, content } = await between.ask(from, "image", { digest }, imageAnswer, signal);
    const others = directory.nodes().filter(({ id, state }) => state === "up" && id !== directory.self.id);
    // Those that do not have it say so.
    const sources = others.map((node) => sourceOf(between, node, { kind: "image", digest }));
    await images.receive(digest, { config, blobs }, async (path) => {
      await receive(path, content, sources, { signal: new AbortController().signal });
    });
  }

  async #take(
    { sandbox, packed, epoch, wakes, contents }: Offer,
    from: FleetNode,
    signal: AbortSignal,
  ): Promise<{ state: string } & Received> {
    const { sandboxes, between, registry } = this.#parts;
    const travel = sandboxes.transits.travelOf(sandbox);
    this.#assertFits(sandbox, packed);
    assertSizes(sandbox, contents);
    const differs = await travel.differences(packed);
    if (differs.length > 0) {
      throw new StacyError("conflict", `sandbox ${sandbox.id} cannot wake here: ${differs.join(", ")}`);
    }
    await this.#image(packed, from);
    const all: Received = { bytes: 0, known: 0 };
    await using arriving = await travel.unpack(packed);
    for (const name of Object.keys(packed.files)) {
      const content = contents[name];
      if (content === undefined) throw new StacyError("protocol", `nothing is said of ${name}`);
      const thing = { kind: "machine" as const, id: sandbox.id, file: name };
      const sources = [sourceOf(between, from, thing)];
      const { bytes, known } = await receive(arriving.path(name), content, sources, {
        signal,
        like: travel.like(packed, name),
      });
      all.bytes += bytes;
      all.known += known;
    }
    sandboxes.assertPlace(sandbox); // others may have come meanwhile
    const { state } = await sandboxes.transits.arrive(sandbox, { node: from.id, name: from.name }, wakes, {
      place: () => arriving.place(),
      take: (record) => registry.take(record, { nodeId: from.id, epoch }),
    });
    return { state, ...all };
  }

  /** What is said here is on disk. */
  async #has(
    { id, since }: z.infer<typeof hasSchema>,
    from: FleetNode,
  ): Promise<"here" | "ended" | "arriving" | "none"> {
    const { store, transits } = this.#parts.sandboxes;
    if (transits.has(id)) return "arriving";
    await store.sandboxWritten(id);
    await store.sync();
    return store.fateOf(id, since - GOOD_MS, from.id);
  }
}

/** @throws StacyError `too-large` for more than such a sandbox has */
function assertSizes({ id, memoryMiB, diskMiB }: SandboxRecord, contents: Offer["contents"]): void {
  const most = (memoryMiB + diskMiB) * 2 ** 20 + EXTRA_BYTES;
  const all = Object.values(contents).reduce((sum, { size }) => sum + size, 0);
  if (all > most)
    throw new StacyError("too-large", `the files of sandbox ${id} have ${all} bytes, and may have ${most}`);
}
