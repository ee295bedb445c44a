import assert from "node:assert/strict";
import { test } from "node:test";
import type { Command } from "commander";
import { DESTRUCTIVE, HABITS, OPTION_HABITS, teach } from "./habits.ts";
import { createProgram } from "./program.ts";

test("a word from elsewhere is answered with what it is called here, and every command that is named there exists", () => {
  assert.equal(
    teach("error: unknown command 'tag'\n(Did you mean rm?)\n", "stacyvm"),
    "error: unknown command 'tag'\nhint: `stacyvm image tag IMAGE NAME` names an image\n",
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
  // Whatever takes something away says so first in its description.
  const takesAway = /^(?:remove|end|delete|send a signal|take a sandbox back|put a copy back)\b/;
  const look = ({ commands }: Command): void => {
    for (const command of commands) {
      if (takesAway.test(command.description()))
        for (const name of [command.name(), ...command.aliases()]) assert.ok(DESTRUCTIVE.has(name), name);
      look(command);
    }
  };
  look(createProgram());
  assert.doesNotMatch(teach("error: unknown command 'histroy'\n(Did you mean destroy?)\n", "stacyvm"), /destroy/);
  assert.equal(teach("error: unknown command 'tag'\n", "stacyvm template"), "error: unknown command 'tag'\n");
});

test("whoever leaves out the sandbox hears how to find it; `ps` alone lists containers elsewhere", () => {
  const missing = "error: missing required argument 'id'\n";
  assert.equal(teach(missing, "stacyvm exec"), `${missing}hint: \`stacyvm ls\` lists the sandboxes\n`);
  assert.match(teach(missing, "stacyvm ps"), /lists the sandboxes, `stacyvm ps ID` the commands in one of them\n$/);
});

test("whoever names no image to run sees a line that works", () => {
  const missing = "error: missing required argument 'image'\n";
  assert.match(teach(missing, "stacyvm run"), /hint: `stacyvm run stacyvm\/busybox -- echo hello`/);
  assert.equal(teach(missing, "stacyvm snapshot build"), missing);
});

test("an option of docker run is answered with what does the same here", () => {
  const wrong = "error: unknown option '--mount'\n";
  assert.match(teach(wrong, "stacyvm run"), /\nhint: -v NAME:\/PATH mounts a volume/);
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

test("nothing destructive is suggested for what is not", () => {
  const removes = /`stacyvm (?:rm|kill|image rm|snapshot rm|checkpoint rm|gc)\b/;
  const meant = new Set(["delete", "destroy", "prune", "remove", "uninstall"]);
  for (const [word, hint] of Object.entries(HABITS)) if (!meant.has(word)) assert.doesNotMatch(hint, removes, word);
});

test("words of Docker do here what they do there, hidden, and options of docker run are taken or answered", () => {
  const program = createProgram();
  const find = (name: string) => program.commands.find((each) => each.name() === name || each.aliases().includes(name));
  const verbs = ["run", "create", "exec", "attach", "ssh", "ps", "logs", "images", "pull", "rmi", "stats", "info"];
  const rest = ["stop", "start", "restart", "build", "commit", "diff", "wait", "port", "tag", "rename", "volume"];
  for (const verb of [...verbs, "inspect", "rm", "cp", "kill", "pause", "unpause", "events", "top", ...rest]) {
    assert.ok(find(verb) !== undefined || HABITS[verb] !== undefined, `${verb} is neither done nor answered`);
  }
  const run = find("run")?.options.flatMap(({ short, long }) => [short, long]) ?? [];
  const options = [
    "-d",
    "-p",
    "-v",
    "--rm",
    "--env-file",
    "--entrypoint",
    "--network",
    "--name",
    "-e",
    "-i",
    "-t",
    "-m",
  ];
  for (const option of [...options, "-w", "-u", "--mount", "--cpus", "--privileged"]) {
    assert.ok(run.includes(option) || OPTION_HABITS[option] !== undefined, `${option} is neither done nor answered`);
  }
  // Which a list of containers needs to show those that have stopped.
  assert.ok(program.commands.find((each) => each.name() === "ls")?.options.some(({ short }) => short === "-a"));
});
