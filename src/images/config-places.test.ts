/** Directories that an image's configuration names and no layer has. */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { scratch, tar, umociImage } from "../../test/images-support.ts";
import { dataPaths } from "../host/paths.ts";
import { DEFAULT_LIMITS } from "./base.ts";
import { ErofsBase } from "./erofs-reader.ts";
import { createImages } from "./store.ts";

test("working directory and volumes are made, through links; a relative one or a file in the way is refused", async () => {
  await using work = await scratch();
  const layout = join(work.path, "layout");
  const layer = tar([
    { path: "app", type: "5", mode: 0o700, uid: 7 },
    { path: "var/run", type: "2", link: "/run" },
    { path: "file", content: "x" },
  ]);
  const images = createImages(dataPaths(join(work.path, "data")));
  await mkdir(layout.replace(/layout$/, "data"), { recursive: true });
  let count = 0;
  const imported = async (...config: string[]) => {
    const tag = `t${count++}`;
    await umociImage(layout, tag, [layer], config);
    return images.import(layout, `local/${tag}:1`, { tag });
  };
  const image = await imported(
    "--config.workingdir=/no/layer/hä s",
    "--config.volume=/var/run/db/../data",
    "--config.volume=/app",
  );
  assert.deepEqual(image.config.volumes?.toSorted(), ["/app", "/var/run/db/../data"]);
  await using base = await ErofsBase.open(image.base);
  const tree = await base.tree(DEFAULT_LIMITS);
  const found = (path: string) => {
    const node = tree.find(Buffer.from(path).toString("latin1"));
    return [node?.type, node?.mode, node?.uid];
  };
  assert.deepEqual(found("no/layer/hä s"), ["directory", 0o755, 0]);
  assert.deepEqual(found("run/data"), ["directory", 0o755, 0]);
  assert.deepEqual(found("app"), ["directory", 0o700, 7]);
  await assert.rejects(imported("--config.workingdir=relative/dir"), {
    code: "invalid",
    message: /working directory "relative\/dir" is not absolute/,
    remedy: /--workdir/,
  });
  await assert.rejects(imported("--config.workingdir=/file/below"), {
    code: "corrupt",
    message: /"file" is no directory/,
  });
});
