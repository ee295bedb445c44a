import assert from "node:assert/strict";
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { runTool } from "../host/run.ts";
import { saveFile } from "./save-file.ts";

test("a file is saved and let go of, however the parts of its content come, and nothing of one that breaks off stays", async () => {
  const folder = await mkdtemp(join(tmpdir(), "save-"));
  try {
    for (let round = 0; round < 24; round++) {
      let parts = round % 4;
      // The web's streams, as answers come: all at once, or in turns of the event loop.
      const web = new ReadableStream<Uint8Array>({
        async pull(controller) {
          if (round % 3 > 0) await delay((round % 3) - 1);
          if (parts-- > 0) controller.enqueue(Buffer.from("part\n"));
          else controller.close();
        },
      });
      const target = join(folder, `${round}`);
      await saveFile(target, Readable.fromWeb(web as never), 0o640);
      assert.equal(await readFile(target, "utf8"), "part\n".repeat(round % 4));
      assert.equal((await stat(target)).mode & 0o737, 0o600);
    }
    async function* breaksOff(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("a part");
      throw new Error("the connection broke");
    }
    await assert.rejects(saveFile(join(folder, "broken"), breaksOff(), 0o644), /connection broke/);
    assert.equal((await readdir(folder)).length, 24);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a directory is no file to save into: an error that names it and a file, before anything is written beside it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "save-"));
  const asked: string[] = [];
  async function* content(): AsyncGenerator<Uint8Array> {
    asked.push("content");
    yield Buffer.from("a part");
  }
  try {
    const place = join(folder, "place");
    await mkdir(place);
    await symlink(place, join(folder, "link"));
    for (const target of [place, `${place}/`, join(folder, "link")])
      await assert.rejects(saveFile(target, content(), 0o644), {
        code: "is-directory",
        message: `${target} is a directory`,
        remedy: /^name a file in it, such as \/.*[^/]\/copy$/,
      });
    await assert.rejects(saveFile(`${folder}/missing/`, content(), 0o644), { code: "is-directory" });
    // What is in the way of its temporary file is told of the one that was named.
    const inNone = join(folder, "none", "file");
    await assert.rejects(saveFile(inNone, content(), 0o644), { code: "ENOENT", path: inNone });
    assert.deepEqual([(await readdir(folder)).sort(), await readdir(place), asked], [["link", "place"], [], []]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("links lead to what is saved and stay; a pipe and a device are written into, and stay what they are", async () => {
  const folder = await mkdtemp(join(tmpdir(), "save-"));
  async function* content(): AsyncGenerator<Uint8Array> {
    yield Buffer.from("a part, ");
    yield Buffer.from("another");
  }
  try {
    await mkdir(join(folder, "place"));
    await symlink("place", join(folder, "directory"));
    await writeFile(join(folder, "place/old"), "old");
    await symlink("old", join(folder, "place/link"));
    await symlink("directory/link", join(folder, "links"));
    await symlink("new", join(folder, "directory/to-nothing"));
    for (const name of ["links", "directory/to-nothing"]) {
      await saveFile(join(folder, name), content(), 0o644);
      assert.ok((await lstat(join(folder, name))).isSymbolicLink());
      assert.equal(await readFile(join(folder, name), "utf8"), "a part, another");
    }
    assert.deepEqual((await readdir(join(folder, "place"))).sort(), ["link", "new", "old", "to-nothing"]);
    assert.ok((await lstat(join(folder, "place/old"))).isFile());
    await runTool("mkfifo", [join(folder, "pipe")]);
    const [read] = await Promise.all([
      readFile(join(folder, "pipe"), "utf8"),
      saveFile(join(folder, "pipe"), content(), 0o644),
    ]);
    assert.equal(read, "a part, another");
    assert.ok((await lstat(join(folder, "pipe"))).isFIFO());
    await symlink("/dev/full", join(folder, "full"));
    await assert.rejects(saveFile(join(folder, "full"), content(), 0o644), { code: "ENOSPC" });
    assert.ok((await stat("/dev/full")).isCharacterDevice());
  } finally {
    await rm(folder, { recursive: true });
  }
});
