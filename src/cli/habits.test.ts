import assert from "node:assert/strict";
import { test } from "node:test";
import type { Command } from "commander";
import { HABITS, OPTION_HABITS, teach } from "./habits.ts";
import { createProgram } from "./program.ts";

test("a word from elsewhere is answered with what it is called here, and every command that is named there exists", () => {
  assert.equal(
    teach("error: unknown command 'pull'\n(Did you mean kill?)\n", "stacyvm"),
    "error: unknown command 'pull'\nhint: `stacyvm image pull IMAGE` pulls an image\n",
  );
  const find = (words: string[]): Command | undefined =>
    words.reduce<Command | undefined>(
      (at, word) => at?.commands.find((each) => each.name() === word) ?? (at?.commands.length ? undefined : at),
      createProgram(),
    );
  for (const [word, hint] of Object.entries(HABITS)) {
    assert.equal(find([word]), undefined, `${word} is a command: no hint is needed`);
    for (const [, named = ""] of hint.matchAll(/`stacyvm ([a-z ]+)/g)) {
      assert.notEqual(find(named.trim().split(" ").slice(0, 2)), undefined, `${word}: there is no ${named}`);
    }
  }
});

test("nothing that takes something away is guessed from a spelling", () => {
  assert.equal(teach("error: unknown command 'rn'\n(Did you mean rm?)\n", "stacyvm"), "error: unknown command 'rn'\n");
  const guess = "error: unknown command 'spwan'\n(Did you mean spawn?)\n";
  assert.equal(teach(guess, "stacyvm"), guess);
  assert.equal(teach("error: unknown command 'pull'\n", "stacyvm template"), "error: unknown command 'pull'\n");
});

test("an option of docker run is answered with what does the same here", () => {
  const wrong = "error: unknown option '-v'\n";
  assert.match(teach(wrong, "stacyvm run"), /\nhint: no directory of the host can be mounted: `stacyvm cp/);
  assert.equal(teach(wrong, "stacyvm ls"), wrong);
  assert.equal(teach("error: unknown option '--nonsense'\n", "stacyvm run"), "error: unknown option '--nonsense'\n");
  const program = createProgram();
  const commands = ["run", "spawn"].map((name) => program.commands.find((each) => each.name() === name));
  for (const [option, hint] of Object.entries(OPTION_HABITS)) {
    const taken = commands.filter((command) =>
      command?.options.some((each) => option === each.short || option === each.long),
    );
    assert.ok(taken.length < commands.length, `${option} is an option: no hint is needed`);
    for (const [, named = ""] of hint.matchAll(/`stacyvm ([a-z]+)/g))
      assert.ok(
        program.commands.some((each) => each.name() === named),
        `${option}: there is no ${named}`,
      );
  }
});
