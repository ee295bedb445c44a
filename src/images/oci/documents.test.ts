/** Documents made to take time or memory: each is refused in a few words, before its entries are looked at one by one. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { REGISTRY_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { choosePlatform, parseConfig, parseDockerSave, parseIndex, parseManifest } from "./documents.ts";

const { images, layers, documentEntries } = REGISTRY_BOUNDS;
const DIGEST = `sha256:${"a".repeat(64)}`;
const BLOB = { digest: DIGEST, size: 1 };
const many = <T>(entry: T, count: number): T[] => new Array<T>(count).fill(entry);
const named = (count: number): Record<string, string> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`n${i}`, ""]));
const bytes = (document: unknown): Buffer => Buffer.from(JSON.stringify(document));
const config = (part: object): unknown => parseConfig(bytes({ config: part }));

function refused(work: () => unknown, words: RegExp): void {
  assert.throws(work, (error) => {
    assert.ok(error instanceof StacyError, String(error));
    assert.equal(error.code, "corrupt");
    assert.match(error.message, words);
    assert.ok(error.message.length < 300, "a few words");
    assert.equal(error.cause, undefined, "what is logged with it");
    return true;
  });
}

describe("too many, and unsound ones, are refused in a few words:", () => {
  for (const name of ["Env", "Cmd", "Entrypoint", "OnBuild"]) {
    test(name, () => {
      const words = new RegExp(`config\\.${name} must be a list of texts, ${documentEntries} at most`);
      refused(() => config({ [name]: many("a", documentEntries + 1) }), words);
      refused(() => config({ [name]: many(1, 100) }), words);
      refused(() => config({ [name]: "a" }), words);
      config({ [name]: many("a", documentEntries) });
      config({ [name]: null });
    });
  }
  for (const name of ["Labels", "ExposedPorts", "Volumes"]) {
    test(name, () => {
      const words = new RegExp(`config\\.${name} must be a table, ${documentEntries} entries at most`);
      refused(() => config({ [name]: named(documentEntries + 1) }), words);
      refused(() => config({ [name]: ["a"] }), words);
      config({ [name]: named(documentEntries) });
      config({ [name]: null });
    });
  }
  test("labels that are no texts", () => refused(() => config({ Labels: { a: 1, b: 1 } }), /config\.Labels must be/));

  test("diff_ids", () => {
    const parse = (ids: unknown): unknown => parseConfig(bytes({ rootfs: { diff_ids: ids } }));
    refused(() => parse(many(DIGEST, layers + 1)), /rootfs\.diff_ids must be a list of sha256 digests, 1000 at most/);
    refused(() => parse(["sha256:short"]), /rootfs\.diff_ids/);
    parse(many(DIGEST, layers));
  });

  test("manifests, layers and annotations", () => {
    refused(() => parseIndex(bytes({ manifests: many({}, images + 1) })), /manifests must be a list, 10000 at most/);
    refused(() => parseIndex(bytes({})), /manifests must be a list/);
    refused(() => parseIndex(bytes({ manifests: [BLOB, 1] })), /manifests\.1 /);
    refused(() => parseManifest(bytes({ config: BLOB, layers: many(1, layers + 1) })), /layers must be a list, 1000/);
    refused(() => parseManifest(bytes({ config: BLOB })), /layers must be a list/);
    assert.equal(parseManifest(bytes({ config: BLOB, layers: many(BLOB, layers) })).layers.length, layers);
    const annotated = (annotations: unknown) =>
      parseIndex(bytes({ manifests: [{ ...BLOB, annotations }] })).manifests[0];
    assert.deepEqual(annotated({ a: "b" }), { ...BLOB, annotations: { a: "b" } });
    assert.equal(annotated(named(documentEntries + 1))?.annotations, undefined);
    assert.equal(annotated({ a: 1 })?.annotations, undefined);
  });

  test("what `docker save` wrote", () => {
    const entry = { Config: "c", RepoTags: null, Layers: ["l"] };
    assert.deepEqual(parseDockerSave(bytes([entry])), [{ ...entry, RepoTags: [] }]);
    refused(() => parseDockerSave(bytes(many({}, images + 1))), /must be a list, 10000 at most/);
    refused(() => parseDockerSave(bytes({})), /must be a list/);
    refused(() => parseDockerSave(bytes([])), /names no image/);
    refused(
      () => parseDockerSave(bytes([{ ...entry, Layers: many(1, 5) }])),
      /0\.Layers must be a list of texts, 1000/,
    );
    refused(() => parseDockerSave(bytes([{ ...entry, RepoTags: many(1, 5) }])), /0\.RepoTags must be a list of texts/);
  });
});

test("of the platforms that an index has an error says some", () => {
  const platform = { os: "plan9", architecture: "x".repeat(200) };
  const { manifests } = parseIndex(bytes({ manifests: many({ ...BLOB, platform }, 1_000) }));
  assert.throws(
    () => choosePlatform(manifests),
    (error) => error instanceof StacyError && error.code === "not-supported" && error.message.length < 10_000,
  );
});
