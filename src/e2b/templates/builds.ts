/** Builds of templates: each runs by itself, tells what it does, and ends with a template that its owner's sandboxes are made of. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { buildImage } from "../../builder/build.ts";
import { BuildContext } from "../../builder/context.ts";
import type { Plan } from "../../builder/plan.ts";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { printable } from "../../host/printable.ts";
import { isTemplateImage, templateImage } from "../../images/template-images.ts";
import type { View } from "../../sandboxes/view.ts";
import { E2bError } from "../error.ts";
import type { E2bParts } from "../parts.ts";
import type { TemplateFiles } from "./files.ts";
import { letGo } from "./images.ts";
import { type BuildStart, planOf } from "./instructions.ts";
import { getTemplate, nameOf, OWN, remember } from "./names.ts";

export interface LogEntry {
  timestamp: string;
  level: "info" | "error" | "debug";
  message: string;
}

export interface Build {
  readonly id: string;
  readonly templateId: string;
  readonly owner: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly vcpus: number;
  readonly memoryMiB: number;
  status: "waiting" | "building" | "ready" | "error";
  readonly logs: LogEntry[];
  logBytes: number;
  reason?: { message: string; step: string };
  endedAt?: number;
  readonly stop: AbortController;
  /** While it runs; never rejects. */
  running?: Promise<void>;
}

export type BuildRequest = Pick<Build, "name" | "tags" | "vcpus" | "memoryMiB">;

/** Of an owner. Whoever asks later is told by the template itself that it is ready. */
const REMEMBERED = 50;
/** Of one log: a line is as long as its program makes it. */
const MAX_LOG_BYTES = 8 << 20;
/** What an entry costs beside its text. */
const ENTRY_BYTES = 256;
const BUILD_DISK_MIB = 8_192;
const BUILD_MEMORY_MIB = 1_024;
const BUILD_LIMIT_MS = 60 * 60_000;

export class TemplateBuilds {
  readonly #parts: E2bParts;
  readonly #files: TemplateFiles;
  readonly #owners = new Map<string, Owned>();

  constructor(parts: E2bParts, files: TemplateFiles) {
    this.#parts = parts;
    this.#files = files;
  }

  /** A build that waits to be told its steps. */
  request(owner: string, templateId: string, request: BuildRequest): Build {
    // Nobody's builds are forgotten for another owner's.
    const own = this.#owners.get(owner) ?? { builds: new Map(), logBytes: 0 };
    this.#owners.set(owner, own);
    const { size } = own.builds;
    const done = [...own.builds.values()].filter(({ status }) => status !== "building");
    for (const { id, logBytes } of done.slice(0, Math.max(0, size - REMEMBERED + 1))) {
      own.builds.delete(id);
      own.logBytes -= logBytes;
    }
    if (size - done.length >= REMEMBERED) throw new StacyError("limit", "too many builds of templates at once");
    const id = randomBytes(16).toString("hex");
    const build: Build = {
      id,
      templateId,
      owner,
      ...request,
      status: "waiting",
      logs: [],
      logBytes: 0,
      stop: new AbortController(),
    };
    own.builds.set(id, build);
    return build;
  }

  /** @throws E2bError 404 */
  find(owner: string, templateId: string, id: string): Build {
    const found = this.#owners.get(owner)?.builds.get(id);
    if (found !== undefined && found.templateId === templateId) return found;
    throw new E2bError(404, `build '${id.slice(0, 64)}' of template '${templateId.slice(0, 64)}' not found`);
  }

  /** What the builds of a name that are remembered are builds of. */
  idOf(owner: string, name: string): string | undefined {
    const own = [...(this.#owners.get(owner)?.builds.values() ?? [])];
    return own.findLast((build) => build.name === name)?.templateId;
  }

  of(owner: string, templateId: string): Build[] {
    const own = [...(this.#owners.get(owner)?.builds.values() ?? [])];
    return own.filter((build) => build.templateId === templateId);
  }

  /**
   * Ends all builds of a template and forgets them, once nothing of them runs any more.
   * @param template its id or name
   * @returns whether there were any
   */
  async cancel(owner: string, template: string): Promise<boolean> {
    const own = this.#owners.get(owner);
    const all = [...(own?.builds.values() ?? [])].filter(
      ({ templateId, name }) => templateId === template || name === template,
    );
    for (const { id, logBytes, stop } of all) {
      own?.builds.delete(id);
      if (own !== undefined) own.logBytes -= logBytes;
      stop.abort(new StacyError("cancelled", "the template was deleted while it was built"));
    }
    await Promise.all(all.map(({ running }) => running));
    return all.length > 0;
  }

  /** Begins; how it goes says the build. @throws StacyError `conflict`, `invalid`, E2bError 404, 501 */
  async start(build: Build, start: BuildStart, sandboxes: View): Promise<void> {
    const imageOf = (name: string): string => getTemplate(name, sandboxes).image;
    const inherited =
      start.fromTemplate === undefined ? undefined : await this.#userOf(imageOf(start.fromTemplate), build);
    this.find(build.owner, build.templateId, build.id); // it is not deleted meanwhile
    if (build.status !== "waiting") throw new StacyError("conflict", `build ${build.id} has begun already`);
    // Wrong steps are the answer to this request.
    const plan = planOf(start, imageOf, inherited);
    for (const { from } of plan.stages) {
      if (from.kind === "image") this.#parts.policies.checkImage(build.owner, from.reference);
    }
    build.status = "building";
    build.running = this.#run(build, start, plan, sandboxes)
      .then(
        () => {
          build.status = "ready";
          this.#log(build, "info", "the template is ready");
        },
        (thrown) => {
          const error = asStacyError(thrown);
          const { message, remedy } = error;
          const said = remedy === undefined ? message : `${message}\n${remedy}`;
          const line = error.data?.line;
          build.reason = {
            message: said,
            step:
              typeof line === "number" && line > 0
                ? String(line)
                : error.phase === "golden" || error.phase === "setup"
                  ? "finalize"
                  : "base",
          };
          this.#log(build, "error", said);
          build.status = "error";
          this.#parts.log.info({ build: build.id, template: build.name, err: error }, "a template was not built");
        },
      )
      .finally(() => {
        build.endedAt = Date.now();
      });
  }

  /** Who commands of a template's image run as, which has all that a build begins with. */
  async #userOf(image: string, { owner }: Build): Promise<string | undefined> {
    if (!isTemplateImage(image)) return undefined;
    const found = await this.#parts.images.of({ name: owner, templates: true }).resolve(image, { pull: "never" });
    return found.config.user;
  }

  async #run(build: Build, start: BuildStart, plan: Plan, sandboxes: View): Promise<void> {
    const { stopping } = this.#parts;
    const images = this.#parts.images.of({ name: build.owner, templates: true });
    const signal = AbortSignal.any([stopping, build.stop.signal, AbortSignal.timeout(BUILD_LIMIT_MS)]);
    await using open = new AsyncDisposableStack();
    const work = open.use(await images.scratch());
    const hashes = (start.steps ?? []).flatMap(({ filesHash }) => (filesHash === undefined ? [] : [filesHash]));
    const context = open.use(
      await BuildContext.ofFolders(this.#files.archives(build.owner, hashes, signal), join(work.path, "context"), {
        party: build.owner,
        signal,
      }),
    );
    const reference = templateImage(build.templateId, build.id);
    let step = "";
    const before = sandboxes.templates.list().map(({ image }) => image);
    // What this build took the place of, or what it made itself when it fails.
    open.defer(async () => void (await letGo(this.#parts, sandboxes, [...before, reference])));
    const { image } = await buildImage(plan, reference, {
      ...{ images, context, signal, diskMiB: BUILD_DISK_MIB },
      noCache: start.force === true || (start.steps ?? []).some(({ force }) => force === true),
      progress: ({ step: next }) => {
        if (next !== step) this.#log(build, "info", next);
        step = next;
      },
      output: (text) => this.#log(build, "debug", text.toString("utf8").trimEnd()),
      start: (base, abort) =>
        sandboxes.borrow(
          {
            image: base,
            imageChecked: true,
            memoryMiB: Math.max(build.memoryMiB, BUILD_MEMORY_MIB),
            vcpus: build.vcpus,
            diskMiB: BUILD_DISK_MIB,
            metadata: { purpose: "template-build", builds: build.name },
            forkable: false,
          },
          abort,
        ),
    });
    const shape = {
      image: image.reference,
      memoryMiB: build.memoryMiB,
      vcpus: build.vcpus,
      ...(start.startCmd
        ? { start: { command: start.startCmd, ...(start.readyCmd ? { ready: start.readyCmd } : {}) } }
        : {}),
    };
    this.#log(build, "info", "starting the template once, and saving it");
    await sandboxes.buildSnapshot(shape, signal, () =>
      this.#log(build, "info", "waiting for its turn: others are started and saved before it"),
    );
    for (const tag of build.tags) {
      signal.throwIfAborted();
      await remember(sandboxes, nameOf(build.name, tag), {
        ...shape,
        metadata: { [OWN.id]: build.templateId, [OWN.build]: build.id, [OWN.name]: build.name, [OWN.tag]: tag },
      });
    }
  }

  #log(build: Build, level: LogEntry["level"], text: string): void {
    const own = this.#owners.get(build.owner);
    // One that is forgotten is read by nobody, and counted nowhere.
    if (own?.builds.get(build.id) !== build) return;
    const messages: string[] = [];
    let bytes = 0;
    for (const line of text.split("\n")) {
      const message = printable(line);
      const cost = costOf(message);
      if (build.logBytes + bytes + cost > MAX_LOG_BYTES) break;
      messages.push(message);
      bytes += cost;
    }
    const room = makeRoom(own, build, bytes);
    let used = 0;
    for (const message of messages) {
      const cost = costOf(message);
      if (used + cost > room) break;
      used += cost;
      build.logs.push({ timestamp: new Date().toISOString(), level, message });
    }
    build.logBytes += used;
    own.logBytes += used;
  }
}

/** What is remembered of one owner. */
interface Owned {
  readonly builds: Map<string, Build>;
  /** Of all of them. */
  logBytes: number;
}

function costOf(message: string): number {
  return ENTRY_BYTES + 2 * message.length;
}

/** All of an owner's logs have one bound: those of builds that have ended go first. @returns the room that there is, bytes */
function makeRoom(own: Owned, build: Build, bytes: number): number {
  if (own.logBytes + bytes > E2B_BOUNDS.logBytes) {
    for (const each of own.builds.values()) {
      if (each === build || each.endedAt === undefined) continue;
      own.logBytes -= each.logBytes;
      each.logs.length = each.logBytes = 0;
      if (own.logBytes + bytes <= E2B_BOUNDS.logBytes) break;
    }
  }
  return E2B_BOUNDS.logBytes - own.logBytes;
}
