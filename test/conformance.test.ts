/**
 * The published interface, row by row, against our server. A row passes, or names its line in docs/differences.md. The rows
 * themselves are held against a published server where one runs: `STACYVM_TEST_PUBLISHED=http://host:port` (mock provider, no
 * keys), which then is asked instead of ours; and against its OpenAPI document where somebody has that:
 * `STACYVM_TEST_PUBLISHED_OPENAPI=openapi.json`.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import { packageRoot } from "../src/host/paths.ts";
import { agree, readDocument } from "./published-document.ts";
import { METRICS, OPERATIONS, type Row, rows, SHAPES } from "./published-interface.ts";
import { Server } from "./server-support.ts";

const published = process.env.STACYVM_TEST_PUBLISHED;
const document = await readDocument(process.env.STACYVM_TEST_PUBLISHED_OPENAPI);
const IMAGE = published === undefined ? "stacyvm/busybox" : "alpine:latest";
const DURATION = /^-?(\d+(\.\d+)?(h|m|s|ms|µs|ns))+$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

const TYPES: Record<string, (value: unknown) => boolean> = {
  any: () => true,
  string: (value) => typeof value === "string",
  boolean: (value) => typeof value === "boolean",
  number: (value) => typeof value === "number",
  integer: Number.isInteger,
  duration: (value) => typeof value === "string" && DURATION.test(value),
  time: (value) => typeof value === "string" && TIME.test(value),
  seconds: (value) => typeof value === "string" && TIME.test(value) && !value.includes("."),
  strings: (value) => valuesAre(value, (each) => typeof each === "string"),
  counts: (value) => valuesAre(value, Number.isInteger),
  flags: (value) => valuesAre(value, (each) => typeof each === "boolean"),
};

function valuesAre(value: unknown, is: (each: unknown) => boolean): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value) && Object.values(value).every(is);
}

function fits(value: unknown, type: string, exact: boolean, where: string): void {
  if (type.endsWith("[]")) {
    assert.ok(Array.isArray(value), `${where}: ${JSON.stringify(value)} is not a list`);
    for (const [i, each] of value.entries()) fits(each, type.slice(0, -2), exact, `${where}[${i}]`);
    return;
  }
  const shape = SHAPES[type];
  if (shape === undefined) {
    assert.ok(TYPES[type], `there is no type ${type}`);
    assert.ok(TYPES[type](value), `${where}: ${JSON.stringify(value)} is not ${type}`);
    return;
  }
  assert.ok(typeof value === "object" && value !== null, `${where}: ${JSON.stringify(value)} is not ${type}`);
  const fields = value as Record<string, unknown>;
  const known = new Set<string>();
  for (const [name, kind] of Object.entries(shape)) {
    const field = name.replace("?", "");
    known.add(field);
    if (name.endsWith("?") && fields[field] === undefined) continue;
    fits(fields[field], kind, false, `${where}.${field}`);
  }
  if (exact) for (const field of Object.keys(fields)) assert.ok(known.has(field), `${where}: has ${field} besides`);
}

describe("the published interface", () => {
  let server: Server | undefined;
  let url = published ?? "";
  let id = "";
  before(async () => {
    if (published === undefined) {
      server = await Server.create(`defaults: { memory_mb: 128, image: ${IMAGE} }\n`);
      ({ url } = server);
    }
    id = await spawn();
  });
  after(async () => {
    await server?.[Symbol.asyncDispose]();
  });

  async function spawn(): Promise<string> {
    const response = await ask("POST", "/sandboxes", { image: IMAGE });
    const { id } = (await response.json()) as { id: string };
    return id;
  }

  function ask(method: string, path: string, body?: unknown): Promise<Response> {
    const sent = body === undefined ? {} : { body: body === "text" ? "{not json" : JSON.stringify(body) };
    return fetch(`${url}/api/v1${path.replace("{id}", id)}`, { method, ...sent });
  }

  async function check(row: Row): Promise<void> {
    const response = await ask(row.method, row.path, row.body);
    const text = await response.text();
    const where = `${row.method} ${row.path} ${JSON.stringify(row.body) ?? ""}: ${response.status} ${text.slice(0, 300)}`;
    const differs = published === undefined ? row.differs : undefined;
    assert.equal(response.status, differs?.status ?? row.status, where);
    assert.ok(response.headers.get("x-request-id"), where);
    if (row.reply === undefined || row.reply === "text") return;
    assert.match(response.headers.get("content-type") ?? "", /^application\/json/, where);
    assert.ok(text.endsWith("\n"), where);
    const reply = response.status >= 400 ? "Error" : row.reply;
    if (document !== undefined) agree(document, row.method, row.path, response.status, JSON.parse(text));
    fits(JSON.parse(text), reply, row.exact === true && published === undefined, where);
  }

  for (const row of rows(IMAGE)) {
    const body = row.body === undefined ? "" : ` ${JSON.stringify(row.body).slice(0, 60)}`;
    test(`${row.method} ${row.path}${body} → ${row.status}`, () => check(row));
  }

  test("streams: the pieces of a command, over HTTP and over a WebSocket", async () => {
    id = await spawn();
    const command = "printf one; sleep 0.2; printf two >&2; sleep 0.2; printf three";
    const pieces = [
      { stream: "stdout", data: "one" },
      { stream: "stderr", data: "two" },
      { stream: "stdout", data: "three" },
    ];
    const response = await ask("POST", "/sandboxes/{id}/exec", { command, stream: true });
    assert.equal(response.headers.get("content-type"), "application/x-ndjson");
    const parsed = (await response.text())
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    // "Streams have an end": one more line, which its clients take for an empty piece.
    const end = published === undefined ? [parsed.pop()] : [];
    assert.deepEqual(parsed, pieces);
    for (const { type, exit_code, data } of end) assert.deepEqual([type, exit_code, data], ["exit", 0, ""]);

    if (published !== undefined) return; // "Commands over a WebSocket"
    const socket = new WebSocket(`${url.replace("http", "ws")}/api/v1/sandboxes/${id}/exec/ws`);
    const frames: { type?: string }[] = [];
    socket.on("message", (data) => frames.push(JSON.parse(String(data))));
    await once(socket, "open");
    socket.send(JSON.stringify({ command }));
    const [code] = await once(socket, "close");
    assert.equal(code, 1000);
    assert.deepEqual(
      frames.filter(({ type }) => type !== "exit"),
      [...pieces, { type: "done" }],
    );
  });

  test("events: each as one line of JSON", async () => {
    const stop = new AbortController();
    const response = await fetch(`${url}/api/v1/events`, { signal: stop.signal });
    assert.equal(response.headers.get("content-type"), "text/event-stream");
    const seen: { type: string; sandbox_id?: string }[] = [];
    const reading = (async () => {
      let text = "";
      for await (const part of response.body ?? []) {
        text += new TextDecoder().decode(part);
        for (const [, json = ""] of text.matchAll(/^data: (.*)\n\n/gm)) seen.push(JSON.parse(json));
        text = text.slice(text.lastIndexOf("\n\n") + 1);
        if (seen.some(({ type }) => type === "sandbox.destroyed")) return;
      }
    })();
    const box = await spawn();
    await ask("DELETE", `/sandboxes/${box}`);
    await reading;
    stop.abort();
    for (const event of seen) fits(event, "Event", false, JSON.stringify(event));
    const types = seen.filter(({ sandbox_id }) => sandbox_id === box).map(({ type }) => type);
    assert.deepEqual(types, ["sandbox.created", "sandbox.running", "sandbox.destroyed"]);
  });

  test("environments: a spec, its suggestions and its builds", async () => {
    const said = async (status: number, shape: string, method: string, path: string, body?: unknown) => {
      const response = await ask(method, `/environments${path}`, body);
      const text = await response.text();
      assert.equal(response.status, status, `${method} ${path}: ${text}`);
      fits(JSON.parse(text), shape, false, path);
      return JSON.parse(text);
    };
    const spec = {
      owner_id: "carol",
      name: "My env",
      base_image: IMAGE,
      python_packages: [" a", "a"],
      apt_packages: ["b"],
    };
    const made = await said(201, "Environment", "POST", "/specs", spec);
    assert.deepEqual([made.python_packages, made.apt_packages], [["a"], ["b"]]);
    assert.deepEqual(await said(200, "Environment", "GET", `/specs/${made.id}`), made);
    await said(200, "Suggestions", "GET", `/specs/${made.id}/suggestions`);
    await said(400, "Error", "POST", "/builds", { spec_id: made.id, targets: ["elsewhere"] });
    // "Pushing images"
    if (published === undefined) await said(501, "Error", "POST", "/builds", { spec_id: made.id, targets: ["ghcr"] });
    const build = await said(201, "EnvironmentBuild", "POST", "/builds", { spec_id: made.id, targets: ["local"] });
    assert.deepEqual([build.status, build.artifacts[0].status], ["queued", "pending"]);
    assert.match(build.artifacts[0].image_ref, /^local\/stacyvm-env:my-env-[0-9a-f]{8}$/);
    await said(200, "SpawnConfig", "GET", `/builds/${build.id}/spawn-config`);
    const canceled = await said(200, "EnvironmentBuild", "POST", `/builds/${build.id}/cancel`);
    assert.deepEqual([canceled.status, canceled.current_step], ["canceled", "canceled"]);
    await said(409, "Error", "POST", `/builds/${build.id}/cancel`);
    await said(200, "EnvironmentBuild", "GET", `/builds/${build.id}`);
    const listed = await said(200, "BuildOfSpec[]", "GET", "/builds?owner_id=carol");
    assert.deepEqual([listed[0].build.id, listed[0].spec], [build.id, made]);
  });

  test("names and labels of the exported numbers", async () => {
    await (await ask("GET", "/sandboxes/{id}/files/list")).text();
    const text = await (await ask("GET", "/metrics/prometheus")).text();
    for (const [name, labels] of Object.entries(METRICS)) {
      // Some of theirs stand below another's heading.
      if (published === undefined) assert.match(text, new RegExp(`^# TYPE stacyvm_${name} gauge$`, "m"), name);
      const line = new RegExp(`^stacyvm_${name}(?:\\{(.*)\\})? \\d`, "m").exec(text);
      assert.ok(line, name);
      const found = [...(line[1] ?? "").matchAll(/(\w+)=/g)].map(([, label = ""]) => label);
      assert.deepEqual(found.sort(), labels, name);
    }
    for (const operation of OPERATIONS) {
      assert.match(text, new RegExp(`^stacyvm_operation_success_total\\{operation="${operation}",`, "m"), operation);
    }
    const names = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
    assert.equal(new Set(names).size, names.length, "a name is exported twice");
    assert.match(text, /\n$/);
    assert.doesNotMatch(text, /\n\n\n/);
  });

  test("every documented route is asked", {
    skip: document === undefined && "STACYVM_TEST_PUBLISHED_OPENAPI names none",
  }, () => {
    const asked = rows(IMAGE).map(({ method, path }) => `${method} ${path.replace(/\?.*/, "")}`);
    for (const { method, pattern, path } of document?.operations ?? []) {
      const found = asked.some((each) => each.startsWith(`${method} `) && pattern.test(each.slice(method.length + 1)));
      assert.ok(found || /events|exec\/ws/.test(path), `${method} ${path}`);
    }
  });

  test("what differs is on the page of differences", async () => {
    const page = await readFile(join(packageRoot, "docs/differences.md"), "utf8");
    for (const { differs } of rows(IMAGE)) {
      if (differs !== undefined) assert.ok(page.includes(`| ${differs.line} |`), differs.line);
    }
    for (const line of [
      "Streams have an end",
      "Admission names no worker",
      "Commands over a WebSocket",
      "Pushing images",
    ])
      assert.ok(page.includes(`| ${line} |`), line);
  });
});
