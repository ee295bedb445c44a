/** `filesystem.Filesystem`: files of a sandbox, and what changes among them. */
import { randomBytes } from "node:crypto";
import { posix } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import type { Agent, FileChange, FileStat } from "../../guest/agent.ts";
import { missingDirectories } from "../../guest/exists.ts";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { sortedInTurns } from "../../host/sorted.ts";
import { Pace } from "../../host/turns.ts";
import { connectError } from "../error.ts";
import { entryOf } from "./entry.ts";
import {
  type EntryInfo,
  EventType,
  type Filesystem,
  type FilesystemEvent,
  FilesystemEventSchema,
  type WatchDirResponse,
  WatchDirResponseSchema,
} from "./gen/filesystem/filesystem_pb.ts";
import type { Guest } from "./guest.ts";
import { withKeepAlive } from "./keep-alive.ts";
import { KeptChanges } from "./kept-changes.ts";
import { noteLost } from "./lost.ts";
import { METADATA } from "./metadata.ts";
import { type GuestUser, give, pathOf } from "./users.ts";

type Guests = (context: HandlerContext) => Promise<Guest>;

interface Watcher {
  sandbox: string;
  directory: string;
  kept: KeptChanges;
  stop: AbortController;
  error?: ConnectError;
}

/** Of one sandbox. */
const MAX_WATCHERS = 256;
/** How a file is asked for that an entry is made of. */
const OF_ENTRY = { follow: false, attributes: METADATA };
/** Entries of a directory that are looked up together. */
const AT_ONCE = 64;

export function filesystemService(guestOf: Guests, stopping: AbortSignal): Partial<ServiceImpl<typeof Filesystem>> {
  const watchers = new Map<string, Watcher>();

  /** One call: whose files they are is looked up, errors get their codes. */
  async function call<T>(context: HandlerContext, work: (guest: Guest, user: GuestUser) => Promise<T>): Promise<T> {
    const guest = await guestOf(context);
    try {
      return await work(guest, (await guest.users()).find(guest.userName));
    } catch (error) {
      throw connectError(error);
    } finally {
      guest.free();
    }
  }
  const entryAt = async ({ agent, users }: Guest, path: string) =>
    await entryOf(agent, await agent.stat(path, OF_ENTRY), await users());

  return {
    stat: ({ path }, context) =>
      call(context, async (guest, user) => ({ entry: await entryAt(guest, pathOf(path, user)) })),

    makeDir: ({ path }, context) =>
      call(context, async (guest, user) => {
        const directory = pathOf(path, user);
        const there = await statIfThere(guest, directory);
        if (there?.kind === "directory")
          throw new ConnectError(`directory already exists: ${directory}`, Code.AlreadyExists);
        if (there !== undefined)
          throw new ConnectError(`path already exists but it is not a directory: ${directory}`, Code.InvalidArgument);
        const made = await missingDirectories(guest.agent, directory);
        await guest.agent.mkdir(directory, { parents: true });
        await give(guest.agent, user, made);
        return { entry: await entryAt(guest, directory) };
      }),

    move: ({ source, destination }, context) =>
      call(context, async (guest, user) => {
        const [from, to] = [pathOf(source, user), pathOf(destination, user)];
        await guest.agent.stat(from, { follow: false });
        const made = await missingDirectories(guest.agent, posix.dirname(to));
        if (made.length > 0) {
          await guest.agent.mkdir(posix.dirname(to), { parents: true });
          await give(guest.agent, user, made);
        }
        await guest.agent.move(from, to);
        return { entry: await entryAt(guest, to) };
      }),

    listDir: ({ path, depth }, context) =>
      call(context, async (guest, user) => {
        const directory = pathOf(path, user);
        const found = await guest.agent.stat(directory);
        if (found.kind !== "directory")
          throw new ConnectError(`path is not a directory: ${directory}`, Code.InvalidArgument);
        const [list, users] = await Promise.all([
          guest.agent.list(directory, { recursive: depth > 1, depth: Math.max(1, depth), attributes: METADATA }),
          guest.users(),
        ]);
        const inside = list.filter(({ path }) => path !== directory);
        const links = inside.filter(({ kind }) => kind === "symlink").length;
        if (inside.length > E2B_BOUNDS.entries || links > E2B_BOUNDS.links) {
          throw new StacyError("limit", `${directory} has ${inside.length} entries, ${links} of them links`, {
            remedy: `list its directories one by one: at most ${E2B_BOUNDS.entries} entries, ${E2B_BOUNDS.links} of them links`,
            final: true,
          });
        }
        const pace = new Pace();
        const byPath = new Map(inside.map((stat) => [stat.path, stat]));
        const paths = await sortedInTurns([...byPath.keys()], pace);
        const entries: EntryInfo[] = [];
        for (let at = 0; at < paths.length; at += AT_ONCE) {
          const some = paths.slice(at, at + AT_ONCE).flatMap((path) => byPath.get(path) ?? []);
          entries.push(...(await Promise.all(some.map((stat) => entryOf(guest.agent, stat, users)))));
          if (pace.over) await pace.rest();
        }
        return { entries };
      }),

    remove: ({ path }, context) =>
      call(context, async (guest, user) => {
        const target = pathOf(path, user);
        await guest.agent.remove(target, { recursive: true }).catch((error) => {
          // What is not there is gone.
          if (asStacyError(error).code !== "not-found") throw error;
        });
        return {};
      }),

    async *watchDir(request, context) {
      const guest = await guestOf(context);
      const abort = new AbortController();
      let begun = false;
      try {
        const user = (await guest.users()).find(guest.userName);
        const signal = AbortSignal.any([context.signal, abort.signal, stopping]);
        const events = await watch(guest, pathOf(request.path, user), request, signal);
        yield watched({ case: "start", value: {} as never });
        begun = true;
        for await (const next of withKeepAlive(events, context.requestHeader)) {
          yield watched(
            next === undefined ? { case: "keepalive", value: {} as never } : { case: "filesystem", value: next },
          );
        }
        context.signal.throwIfAborted();
      } catch (error) {
        if (begun) noteLost(context, error);
        throw connectError(error);
      } finally {
        abort.abort();
        guest.free();
      }
    },

    async createWatcher(request, context) {
      const guest = await guestOf(context);
      const stop = new AbortController();
      try {
        const mine = [...watchers.values()].filter(({ sandbox }) => sandbox === guest.id);
        if (mine.length >= MAX_WATCHERS) throw new StacyError("limit", "this sandbox has too many watchers");
        const user = (await guest.users()).find(guest.userName);
        const directory = pathOf(request.path, user);
        const events = await watch(guest, directory, request, AbortSignal.any([stop.signal, stopping]));
        const id = `w${randomBytes(8).toString("hex")}`;
        const room = mine[0]?.kept.room ?? { left: E2B_BOUNDS.watchedBytes };
        const watcher: Watcher = { sandbox: guest.id, directory, kept: new KeptChanges(room), stop };
        watchers.set(id, watcher);
        void (async () => {
          try {
            for await (const event of events) {
              if (stop.signal.aborted) break;
              watcher.kept.push(event);
            }
          } catch (error) {
            watcher.error = connectError(error);
          } finally {
            guest.free();
            // With its sandbox; a client that asks again is told that there is no such watcher.
            if (watcher.error !== undefined) {
              watcher.kept.take();
              watchers.delete(id);
            }
          }
        })();
        return { watcherId: id };
      } catch (error) {
        stop.abort();
        guest.free();
        throw connectError(error);
      }
    },

    getWatcherEvents: ({ watcherId }, context) =>
      call(context, async ({ id, agent }) => {
        const { kept, directory } = watcherOf(id, watcherId);
        // What the guest was busy with before is done when it answers; the directory may be gone.
        await agent.stat(directory).catch(() => {});
        await kept.settled(context.signal);
        return { events: kept.take() };
      }),

    removeWatcher: ({ watcherId }, context) =>
      call(context, async ({ id }) => {
        const watcher = watcherOf(id, watcherId);
        watcher.stop.abort();
        watcher.kept.take();
        watchers.delete(watcherId);
        return {};
      }),
  };

  function watcherOf(sandbox: string, id: string): Watcher {
    const found = watchers.get(id);
    if (found?.sandbox === sandbox) return found;
    throw new ConnectError(`watcher with id ${id} not found`, Code.NotFound);
  }
}

async function statIfThere({ agent }: Guest, path: string): Promise<FileStat | undefined> {
  return agent.stat(path).catch((error) => {
    if (asStacyError(error).code === "not-found") return undefined;
    throw error;
  });
}

/**
 * The directory is watched when this resolves.
 * @param wanted `includeEntry`: events say of what is there still what it is
 * @throws ConnectError when it is none
 */
async function watch(
  { agent, users }: Guest,
  directory: string,
  { recursive, includeEntry }: { recursive: boolean; includeEntry: boolean },
  signal: AbortSignal,
): Promise<AsyncGenerator<FilesystemEvent>> {
  const { kind } = await agent.stat(directory);
  if (kind !== "directory") throw new ConnectError(`path is not a directory: ${directory}`, Code.InvalidArgument);
  // Read once: a watcher outlives the request that made it, and its events are many.
  const owners = includeEntry ? await users() : undefined;
  const entryIfThere = async (path: string): Promise<EntryInfo | undefined> => {
    try {
      return owners && (await entryOf(agent, await agent.stat(path, OF_ENTRY), owners));
    } catch {
      return undefined; // it may have gone since
    }
  };
  const begun = Promise.withResolvers<void>();
  const changes = agent.watch(directory, { recursive, signal, ready: begun.resolve })[Symbol.asyncIterator]();
  const first = changes.next();
  await Promise.race([begun.promise, first]);
  return (async function* () {
    try {
      for (let next = await first; next.done !== true; next = await changes.next()) {
        const { change, path, to } = next.value;
        const event = async (type: EventType, at: string): Promise<FilesystemEvent> => {
          const entry = await entryIfThere(at);
          const name = posix.relative(directory, at);
          return create(FilesystemEventSchema, { type, name, ...(entry === undefined ? {} : { entry }) });
        };
        const type = TYPES[change];
        if (type === undefined) continue;
        yield await event(type, path);
        if (to !== undefined) yield await event(EventType.CREATE, to);
        // A file that is there at once with its content, as ours are, was written also.
        if (change === "create" && (await hasContent(agent, path))) yield await event(EventType.WRITE, path);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      await changes.return?.();
    }
  })();
}

async function hasContent(agent: Agent, path: string): Promise<boolean> {
  return await agent.stat(path, { follow: false }).then(
    ({ kind, size }) => kind === "file" && size > 0,
    () => false,
  );
}

const TYPES: Record<FileChange, EventType | undefined> = {
  create: EventType.CREATE,
  modify: EventType.WRITE,
  delete: EventType.REMOVE,
  rename: EventType.RENAME,
  overflow: undefined,
};

function watched(event: WatchDirResponse["event"]): WatchDirResponse {
  return create(WatchDirResponseSchema, { event: event as never });
}
