/** What travels between nodes, and how one is asked for it. */
import { open } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { StacyError } from "../../host/error.ts";
import type { Between } from "../between.ts";
import type { FleetNode } from "../contract.ts";
import { type Piece, pieceSchema, readPiece } from "./pieces.ts";
import type { Rate } from "./rate.ts";
import type { Source } from "./transfer.ts";

/** A file of something that a node has. */
export const thingSchema = z.discriminatedUnion("kind", [
  /** Of a suspended sandbox. */
  z.strictObject({ kind: z.literal("machine"), id: z.string().max(64), file: z.string().max(64) }),
  /** Of a golden snapshot. */
  z.strictObject({ kind: z.literal("golden"), key: z.string().regex(/^[0-9a-f]{64}$/), file: z.string().max(64) }),
  /** A base image. */
  z.strictObject({ kind: z.literal("image"), digest: z.string().regex(/^sha256:[0-9a-f]{64}$/) }),
]);

export type Thing = z.infer<typeof thingSchema>;

const piecesSchema = z.strictObject({
  thing: thingSchema,
  pieces: z.array(pieceSchema.pick({ at: true, length: true })).max(1024),
});

const PIECES = "pieces";
/** A node that sends nothing for so long is asked again, ms. */
const IDLE_MS = 10_000;

/** This node sends what others ask for, all of it together at most at that rate. */
export function sendThings(
  between: Between,
  rate: Rate,
  find: (thing: Thing, from: FleetNode) => Promise<string>,
): void {
  between.on(PIECES, async function* (body, { from, signal }) {
    const { thing, pieces } = piecesSchema.parse(body);
    const file = await open(await find(thing, from), "r");
    try {
      for (const piece of pieces) {
        await rate.take(piece.length, signal);
        yield await readPiece(file, piece);
      }
    } finally {
      await file.close();
    }
  });
}

/** A node that has it. */
export function sourceOf(between: Between, node: FleetNode, thing: Thing): Source {
  return {
    name: node.name,
    async read(pieces: readonly Piece[], signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
      const idle = new AbortController();
      const watch = watchdog(idle);
      const asked = { thing, pieces: pieces.map(({ at, length }) => ({ at, length })) };
      try {
        const answer = await between.bytes(node, PIECES, asked, AbortSignal.any([signal, idle.signal]));
        return watched(answer, watch);
      } catch (error) {
        watch.stop();
        throw error;
      }
    },
  };
}

interface Watch {
  alive(): void;
  stop(): void;
}

function watchdog(over: AbortController): Watch {
  const late = (): void => over.abort(new StacyError("timeout", `nothing came for ${IDLE_MS / 1000} s`));
  const timer = setTimeout(late, IDLE_MS);
  return { alive: () => timer.refresh(), stop: () => clearTimeout(timer) };
}

async function* watched(answer: AsyncIterable<Buffer>, watch: Watch): AsyncGenerator<Buffer> {
  try {
    for await (const bytes of answer) {
      watch.alive();
      yield bytes;
    }
  } finally {
    watch.stop();
  }
}

/** Aborts when the node has not answered for a while: whoever waits for it would wait for ever. */
export async function whileItAnswers<T>(
  node: FleetNode,
  answers: (node: FleetNode) => Promise<boolean>,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const silent = new AbortController();
  const done = new AbortController();
  const watch = async (): Promise<void> => {
    for (;;) {
      await delay(LOOK_MS, undefined, { signal: done.signal });
      if (await answers(node)) continue;
      silent.abort(new StacyError("unavailable", `the node ${node.name} does not answer any more`, { phase: "fleet" }));
      return;
    }
  };
  void watch().catch(() => {}); // it is done
  try {
    return await work(AbortSignal.any([signal, silent.signal]));
  } finally {
    done.abort();
  }
}

const LOOK_MS = 1_000;
