/**
 * Every decoder that faces a guest, a registry, an archive or a client, with inputs made from a kept corpus (test/corpus, a folder for each
 * decoder): flipped, cut, doubled and spliced. Each input is decoded or is a `StacyError`, and soon. What once failed is added to the corpus.
 *
 * `STACYVM_FUZZ=1000000` is the long form; `STACYVM_FUZZ_SEED` repeats a run.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import { type DescMessage, fromBinary } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { ReplyError } from "../sdk/src/errors.ts";
import { shapes } from "../sdk/src/generated.ts";
import { decode as decodeReply } from "../sdk/src/schema.ts";
import { parseRange } from "../src/api/range.ts";
import { ExecRequest, execInput, ProcessRequest } from "../src/api/schemas/exec.ts";
import {
  ChmodRequest,
  CopyRequest,
  fileBody,
  MkdirRequest,
  MoveRequest,
  WriteFileRequest,
} from "../src/api/schemas/file.ts";
import { ImportRequest, PullRequest } from "../src/api/schemas/image.ts";
import { ForkRequest, NetworkRequest, SpawnRequest, spawnInput } from "../src/api/schemas/sandbox.ts";
import { QuotaRequest, TemplateRequest, TemplateSpawnRequest, templateInput } from "../src/api/schemas/template.ts";
import { configAfter } from "../src/builder/configuration.ts";
import { ignoreRules } from "../src/builder/ignore.ts";
import { namePattern } from "../src/builder/match.ts";
import { readPlan } from "../src/builder/read-plan.ts";
import { eachPart } from "../src/e2b/envd/files.ts";
import { WatchDirRequestSchema } from "../src/e2b/envd/gen/filesystem/filesystem_pb.ts";
import {
  SendInputRequestSchema,
  StartRequestSchema,
  StreamInputRequestSchema,
} from "../src/e2b/envd/gen/process/process_pb.ts";
import { assertFewFields } from "../src/e2b/envd/message-fields.ts";
import { Connections } from "../src/egress/connections.ts";
import { answerQuestion } from "../src/egress/dns.ts";
import { HostRules, normaliseHost } from "../src/egress/host-rules.ts";
import { Meter, NO_LIMITS } from "../src/egress/meter.ts";
import { Names } from "../src/egress/names.ts";
import { EgressProxy } from "../src/egress/proxy.ts";
import type { Broker } from "../src/egress/secrets/broker.ts";
import { FrameDecoder } from "../src/guest/frame-decoder.ts";
import { exitStatus, fileChange, fileStat, guestInfo, helloInfo, processInfo } from "../src/guest/methods.ts";
import { FieldReader } from "../src/guest/protocol.ts";
import { failureOf } from "../src/guest/status.ts";
import { BUILD_BOUNDS } from "../src/host/bounds.ts";
import { StacyError } from "../src/host/error.ts";
import { boundJsonLevels } from "../src/host/json-bounds.ts";
import { plainConfig } from "../src/images/content.ts";
import { parseChallenge } from "../src/images/oci/challenge.ts";
import { parseConfig, parseDockerSave, parseIndex, parseManifest } from "../src/images/oci/documents.ts";
import { parseReference } from "../src/images/reference.ts";
import { readTar } from "../src/images/tar.ts";
import { jsonLines } from "../src/interpreter/json-lines.ts";
import { markedStreams } from "../src/interpreter/marked-streams.ts";
import { parseDurationNs } from "../src/sandboxes/duration.ts";
import { faultMessage, takeAnswer } from "../src/vmm/firecracker/api.ts";
import { faultError } from "../src/vmm/firecracker/faults.ts";
import { parseLine } from "../src/vmm/qemu/qmp.ts";

// As the program does at its start.
boundJsonLevels();

const INPUTS = Number(process.env.STACYVM_FUZZ ?? 2_000);
const SEED = Number(process.env.STACYVM_FUZZ_SEED ?? Date.now() % 2 ** 31);
/** Of this thread's own time. Far beyond what any input takes; a pattern or a loop that explodes takes longer. */
const SLOW_MS = 2_000;
/** Of a decoder that lets others be served between its steps. */
const MOST_STEPS = 100_000;

/** An image's that a build begins with, which may be anybody's too. */
const BASE = { ...plainConfig(), onBuild: ["ENV PUT_OFF=$PATH"] };

const MESSAGES: DescMessage[] = [
  ...[StartRequestSchema, SendInputRequestSchema, StreamInputRequestSchema, WatchDirRequestSchema],
];

const CORPUS = join(import.meta.dirname, "corpus");

const REQUESTS = [
  ...[SpawnRequest, ExecRequest, ProcessRequest, ForkRequest, NetworkRequest, TemplateRequest, TemplateSpawnRequest],
  ...[QuotaRequest, WriteFileRequest, MoveRequest, CopyRequest, ChmodRequest, MkdirRequest, PullRequest, ImportRequest],
];

const DECODERS: Record<string, (input: Buffer) => unknown> = {
  frames: (input) => {
    for (const strict of [false, true]) {
      const decoder = new FrameDecoder();
      if (strict) decoder.strict();
      decoder.push(input.subarray(0, input.length >> 1), () => {});
      decoder.push(input.subarray(input.length >> 1), () => {});
    }
  },
  fields: (input) => {
    const fields = new FieldReader(input);
    const shown = (of: FieldReader): unknown => fileBody(fileStat(of));
    for (const read of [helloInfo, exitStatus, processInfo, shown, fileChange, guestInfo, failureOf]) {
      attempt(() => read(fields));
    }
  },
  challenge: (input) => {
    const { scheme } = parseChallenge(input.toString());
    if (scheme === "") throw new StacyError("invalid", "no scheme");
  },
  /** A form of E2B's clients: its boundary is the first line. */
  forms: async (input) => {
    const boundary = input.subarray(2, Math.max(2, input.indexOf("\r\n"))).toString("latin1");
    const cut = input.length >> 1;
    const body = async function* (): AsyncGenerator<Uint8Array> {
      yield input.subarray(0, cut);
      yield input.subarray(cut);
    };
    await eachPart(body(), `multipart/form-data; boundary="${boundary}"`, async (content) => {
      for await (const part of content) void part;
    });
  },
  /** What E2B's clients call with, in protobuf. */
  messages: (input) => {
    let fit = 0;
    for (const type of MESSAGES) {
      try {
        assertFewFields(input, type);
      } catch (error) {
        if (!(error instanceof ConnectError)) throw error;
        continue;
      }
      try {
        fromBinary(type, input, { readUnknownFields: false });
        fit += 1;
      } catch {} // the library's words: Connect makes an answer of them
    }
    if (fit === 0) throw new StacyError("invalid", "it is none");
  },
  /** COPY's, in the first line, and the names that it is held against. */
  *patterns(input) {
    const [pattern = "", ...names] = input.toString().split("\n");
    const fits = namePattern(pattern);
    let meant = 0;
    for (const name of names) if (yield* fits.steps(name.slice(0, BUILD_BOUNDS.pathLetters))) meant += 1;
    if (meant === 0) throw new StacyError("not-found", "it means nothing");
  },
  /** Rules, and after two zero bytes the paths. */
  *ignore(input) {
    const [rules = "", paths = ""] = input.toString().split("\0\0");
    const ignores = ignoreRules(rules);
    const names = paths.split("\n").map((path) => path.slice(0, BUILD_BOUNDS.pathLetters));
    let hidden = 0;
    for (const name of names) if (yield* ignores.steps(name)) hidden += 1;
    if (hidden === 0) throw new StacyError("not-found", "it hides nothing");
  },
  tar: (input) =>
    readTar(
      (async function* () {
        yield input;
      })(),
      async (_entry, body) => {
        for await (const part of body) void part;
      },
    ),
  index: (input) => parseIndex(input),
  manifest: (input) => parseManifest(input),
  config: (input) => parseConfig(input),
  "docker-save": (input) => parseDockerSave(input),
  reference: (input) => parseReference(input.toString()),
  plan: (input) => {
    for (const stage of readPlan(input.toString(), {}).stages) configAfter(BASE, stage.steps(BASE));
  },
  range: (input) => parseRange(input.toString(), 1000),
  duration: (input) => parseDurationNs(input.toString()),
  dns: (input) =>
    answerQuestion(input, { names: new Names(), permit: (name) => name !== "other", resolve: async () => {} }),
  proxy: throughProxy,
  hosts: (input) => {
    const text = input.toString();
    new HostRules(text.split("\n")).permit(normaliseHost(text), 80);
  },
  /** QEMU's: a guest that has broken out of its machine says what it likes there. */
  monitor: (input) => parseLine(input.toString()),
  /** Firecracker's API. */
  answers: (input) => {
    const taken = takeAnswer(input.toString("latin1"));
    if (taken === undefined) throw new StacyError("protocol", "not whole");
    faultError(faultMessage(taken.answer), "load");
  },
  /** What a context of the code interpreter says, or a program in its place; MARK stands for the mark that only its driver knows. */
  interpreter: (input) => {
    const python = jsonLines();
    const others = markedStreams({ ask: ({ code }) => code, settle: () => "" })();
    const { mark } = JSON.parse(python.begin({ env: {}, seed: "" }).toString());
    const streams = others.ask({ code: "x", env: {} }).toString("latin1", 0, 32);
    let events = 0;
    for (const [conversation, mine] of [
      [python, mark],
      [others, streams],
    ] as const) {
      const data = Buffer.from(input.toString("latin1").replaceAll("MARK", mine), "latin1");
      const cut = data.length >> 1;
      attempt(() => {
        for (const type of ["stdout", "stderr"] as const)
          for (const piece of [data.subarray(0, cut), data.subarray(cut)])
            events += conversation.read({ type, data: piece }).length;
      });
    }
    if (events === 0) throw new StacyError("protocol", "it says nothing");
  },
  requests: (input) => {
    const body = parsed(input);
    let fit = 0;
    for (const schema of REQUESTS) {
      const result = schema.safeParse(body);
      if (!result.success) continue;
      fit += 1;
      if (schema === SpawnRequest) spawnInput(result.data as never, undefined);
      if (schema === ExecRequest) execInput(result.data as never);
      if (schema === TemplateRequest)
        templateInput(result.data as never, "name", { defaultMemoryMiB: 1024, defaultVcpus: 1, defaultTtlMs: 60_000 });
    }
    if (fit === 0) throw new StacyError("invalid", "it fits none");
  },
  /** The SDK's side of an answer: a server may be another's. */
  replies: (input) => {
    const body = parsed(input);
    let fit = 0;
    for (const ref of Object.keys(shapes)) {
      try {
        decodeReply({ ref }, body);
        fit += 1;
      } catch (error) {
        if (!(error instanceof ReplyError)) throw error;
      }
    }
    if (fit === 0) throw new StacyError("invalid", "it fits none");
  },
};

function parsed(input: Buffer): unknown {
  try {
    return JSON.parse(input.toString());
  } catch {
    throw new StacyError("invalid", "no JSON");
  }
}

/**
 * A guest's program sends the proxy what comes before two zero bytes, and whatever it connects to answers with what comes after them.
 * Both ends go, whatever it was.
 */
async function throughProxy(input: Buffer): Promise<void> {
  const half = input.indexOf("\0\0");
  const [sent, answered] = half < 0 ? [input, input] : [input.subarray(0, half), input.subarray(half + 2)];
  const connections = new Connections();
  let connected = 0;
  const proxy = new EgressProxy({
    connections,
    meter: new Meter(NO_LIMITS),
    broker: { scheme: () => undefined } as unknown as Broker,
    assertPermitted: () => {},
    dial: async ({ host }) => {
      if (host === "refused") throw new StacyError("permission", "refused");
      connected++;
      const [near, far] = duplexPair();
      far.on("error", () => {}).resume();
      far.end(answered);
      return near as Socket;
    },
    tell: () => {},
  });
  const [program, client] = duplexPair();
  const closed = new Promise<void>((close) => connections.take(client, close));
  proxy.serve(client);
  program.on("error", () => {}).resume();
  program.end(sent);
  // A program that waits for ever is no matter of the proxy; one that goes takes everything of it along.
  for (let turn = 0; turn < 20 && connections.open > 0; turn++) await new Promise((wake) => setImmediate(wake));
  program.destroy();
  await closed;
  assert.equal(connections.open, 0);
  if (connected === 0) throw new StacyError("invalid", "nothing was asked for");
}

function attempt(act: () => unknown): void {
  try {
    act();
  } catch (error) {
    if (!(error instanceof StacyError)) throw error;
  }
}

/** Numbers from a seed: a run can be repeated. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const NUMBERS = [0, 1, 0x7f, 0x80, 0xff, 0x30, 0x39, 0x2f, 0x22, 0x5c, 0x0a, 0xa7];

function mutated(corpus: Buffer[], next: (below: number) => number): Buffer {
  let input = Buffer.from(corpus[next(corpus.length)] as Buffer);
  for (let step = next(6); step >= 0 && input.length > 0; step--) {
    const at = next(input.length);
    const length = Math.min(input.length - at, 1 + next(next(4) === 0 ? 600 : 8));
    switch (next(8)) {
      case 0:
        input[at] = (input[at] as number) ^ (1 << next(8));
        break;
      case 1:
        input[at] = NUMBERS[next(NUMBERS.length)] as number;
        break;
      case 2:
        if (at + 4 <= input.length) input.writeUInt32LE(next(2) === 0 ? next(70_000) : 0xffff_fff0 + next(16), at);
        break;
      case 3:
        input = Buffer.concat([input.subarray(0, at), input.subarray(at + length)]);
        break;
      case 4:
        input = Buffer.concat([input.subarray(0, at + length), input.subarray(at)]);
        break;
      case 5:
        input = input.subarray(0, at);
        break;
      // A long run of the same: what looks at all of it from each place takes seconds.
      case 6: {
        const piece = input.subarray(at, at + 1 + next(next(2) === 0 ? 2 : 24));
        const run = next(200) === 0 ? Buffer.alloc(100_000, piece) : Buffer.alloc(next(600), piece);
        input = Buffer.concat([input.subarray(0, at), run, input.subarray(at)]);
        break;
      }
      default: {
        const other = corpus[next(corpus.length)] as Buffer;
        input = Buffer.concat([input.subarray(0, at), other.subarray(next(other.length + 1))]);
      }
    }
    if (input.length > 200_000) input = input.subarray(0, 200_000);
  }
  return input;
}

/** ms of processor that this thread has had: however busy the host is, an input takes the same. */
function ownMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

for (const [name, decode] of Object.entries(DECODERS)) {
  test(`${name}: any input is decoded or refused`, async (t) => {
    const files = readdirSync(join(CORPUS, name)).sort();
    const corpus = files.map((file) => readFileSync(join(CORPUS, name, file)));
    assert.ok(corpus.length > 0);
    const next = random(SEED);
    let decoded = 0;
    const one = async (input: Buffer): Promise<void> => {
      let longest = 0;
      let begun = ownMs();
      const step = (): void => {
        const now = ownMs();
        longest = Math.max(longest, now - begun);
        begun = now;
      };
      const about = (): string => `seed ${SEED}, input in base64: ${input.toString("base64").slice(0, 4000)}`;
      try {
        const result = decode(input);
        if (result instanceof Promise) await result;
        else if (result instanceof Iterator) for (let i = 0; i < MOST_STEPS && result.next().done !== true; i++) step();
        decoded++;
      } catch (error) {
        if (!(error instanceof StacyError)) throw new Error(about(), { cause: error });
      }
      step();
      assert.ok(longest < SLOW_MS, `${longest} ms at a stretch: ${about()}`);
    };
    for (const input of corpus) await one(input);
    for (let i = 0; i < INPUTS; i++) await one(mutated(corpus, next));
    t.diagnostic(`${INPUTS} inputs, ${decoded} decoded, seed ${SEED}`);
    // If none passed the first check, the others were not tried.
    assert.ok(decoded > INPUTS / 200, `only ${decoded} of ${INPUTS} were decoded`);
  });
}
