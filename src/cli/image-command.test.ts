import assert from "node:assert/strict";
import { test } from "node:test";
import { imageCommand } from "./image-command.ts";

test("the image's own command begins where the image says, else in the root; words of the command line where every command does", () => {
  const image = { entrypoint: ["./app"], cmd: ["serve"], stopSignal: "SIGQUIT" };
  assert.deepEqual(imageCommand("x", [], image), { argv: ["./app", "serve"], stopSignal: 3, cwd: "/" });
  assert.deepEqual(imageCommand("x", [], { ...image, cwd: "/srv" }), { argv: ["./app", "serve"], stopSignal: 3 });
  assert.deepEqual(imageCommand("x", [], { ...image, workdir: "/srv" }), { argv: ["./app", "serve"], stopSignal: 3 });
  assert.deepEqual(imageCommand("x", ["ls"], image), { argv: ["ls"] });
  assert.throws(() => imageCommand("x", [], { entrypoint: [], cmd: [] }), { code: "invalid" });
});
