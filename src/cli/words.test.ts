/** One name for one thing: what the glossary says is not called so, no page and no help text calls so. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Command } from "commander";
import { packageRoot } from "../host/paths.ts";
import { HABITS } from "./habits.ts";
import { createProgram } from "./program.ts";

const read = (name: string): string => readFileSync(join(packageRoot, name), "utf8");
const pages = [
  "README.md",
  "CHANGELOG.md",
  "examples/README.md",
  "sdk/README.md",
  "python/README.md",
  ...readdirSync(join(packageRoot, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

/** The page of the crash protocol is about the process, whichever command it is in. */
const EXCEPT: Record<string, string[]> = { daemon: ["docs/crash-protocol.md", "docs/network.md"] };

/** Without code, which has names of its own. */
function words(markdown: string): string {
  return markdown.replaceAll(/^```[\s\S]*?^```$/gm, "").replaceAll(/`[^`]*`/g, "");
}

/** What people are told when something fails: messages, remedies and notes, as they stand in the program. */
function errorTexts(): [file: string, text: string][] {
  const told = /(?:new \w*Error\(|refuse\w*\(|remedy: |\bnote\(|Advice\()([^;]*?)(?:;|,\n\s*\}|\n\s*\))/g;
  const literal = /"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`/g;
  return (readdirSync(join(packageRoot, "src"), { recursive: true }) as string[])
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .flatMap((name) => {
      const file = `src/${name}`;
      return [...read(file).matchAll(told)].flatMap(([, expression = ""]) =>
        [...expression.matchAll(literal)].map(([, plain, template]): [string, string] => [
          file,
          (plain ?? template ?? "").replaceAll(/\$\{[^}]*\}/g, " "),
        ]),
      );
    });
}

function banned(): string[] {
  const found = [...read("docs/glossary.md").matchAll(/^\| [^|]+ \| [^|]+ \| ([^|]+) \|$/gm)]
    .flatMap(([, cell = ""]) => cell.split(", "))
    .map((word) => word.trim())
    .filter((word) => word !== "" && word !== "---" && word !== "not called");
  assert.ok(found.length >= 8, found.join());
  return found;
}

test("no page, no help text and no error uses a word that the glossary replaces", () => {
  for (const page of pages) {
    if (page === "docs/glossary.md") continue;
    const text = words(read(page));
    for (const word of banned()) {
      const found = new RegExp(`\\b${word}s?\\b`, "i").exec(text);
      if (found === null || EXCEPT[word]?.includes(page)) continue;
      const around = text.slice(Math.max(0, found.index - 60), found.index + 60);
      assert.fail(`${page} says "${word}", which docs/glossary.md calls otherwise: ...${around}...`);
    }
  }
  const errors = errorTexts();
  assert.ok(errors.length > 500, String(errors.length));
  for (const [file, text] of errors) {
    // A name in backticks or quotes, or with a dot or slash in it, is what the program or a file is called.
    const said = text.replaceAll(/\\?`[^`]*`|\S*[./_]\S*/g, "");
    for (const word of banned())
      assert.doesNotMatch(said, new RegExp(`\\b${word}s?\\b`, "i"), `${file}: ${JSON.stringify(text)}`);
  }
});

test("no text of the console uses a word that the glossary replaces", () => {
  const files = (readdirSync(join(packageRoot, "web/src"), { recursive: true }) as string[]).filter((name) =>
    name.endsWith(".ts"),
  );
  let seen = 0;
  for (const name of files) {
    // Texts between tags, and literals with a blank in them or a capital: what is shown. The rest are names of the program's own.
    const code = read(`web/src/${name}`).replaceAll(/\/\*[\s\S]*?\*\/|(?:^|\s)\/\/.*$|^import .*$/gm, "");
    const shown = [...code.matchAll(/>([^<>]*[A-Za-z][^<>]*)<|"([A-Z][^"\n]*|[^"\n]* [^"\n]*)"/g)];
    for (const [, text = "", literal = ""] of shown) {
      seen += 1;
      const said = (text || literal).replaceAll(/\$\{[^}]*\}/g, " ");
      for (const word of banned())
        assert.doesNotMatch(said, new RegExp(`\\b${word}s?\\b`, "i"), `web/src/${name}: ${JSON.stringify(said)}`);
    }
  }
  assert.ok(seen > 300, String(seen));
});

test("every command that a page names exists", () => {
  const program = createProgram();
  const named = (at: Command, word: string): Command | undefined =>
    at.commands.find((each) => each.name() === word || each.aliases().includes(word));
  for (const page of pages) {
    for (const [span = "", path = ""] of read(page).matchAll(/(?:`|^|\()stacyvm ((?:[a-z][a-z-]* ?)+)/gm)) {
      const [first = "", second = ""] = path.trim().split(" ");
      const command = named(program, first);
      // A word that is not there may be named where its hint is shown.
      if (command === undefined && first in HABITS) continue;
      assert.ok(command !== undefined || first === "help", `${page}: there is no command ${JSON.stringify(span)}`);
      if (command !== undefined && command.commands.length > 0 && second !== "" && first !== "checkpoint")
        assert.ok(named(command, second), `${page}: there is no command ${JSON.stringify(span)}`);
    }
  }
});

test("a block that starts a sandbox does not remove it: what it printed works when it was pasted", () => {
  let removing = 0;
  for (const page of pages) {
    for (const [, block = ""] of read(page).matchAll(/^```sh\n([\s\S]*?)^```$/gm)) {
      if (!/stacyvm rm /.test(block)) continue;
      removing += 1;
      assert.doesNotMatch(block, /stacyvm (?:spawn|exec|url|cp|fork|logs) /, `${page}: ${block}`);
    }
  }
  assert.ok(removing >= 3, String(removing));
});

/** Pages that a stranger reads to use it; the others are read to know why, and may take longer. */
const FIRST_READ = [
  ...["README.md", "examples/README.md", "sdk/README.md", "python/README.md", "docs/README.md", "docs/quick-start.md"],
  ...["docs/faq.md", "docs/concepts.md", "docs/images.md", "docs/console.md", "docs/mcp.md", "docs/python.md"],
  ...["docs/from-docker.md", "docs/from-e2b.md", "docs/comparison.md", "docs/troubleshooting.md", "docs/glossary.md"],
  ...["docs/operations.md", "docs/ready.md"],
];
const MOST_WORDS = 40;

test("no sentence that a stranger reads first is longer than 40 words", () => {
  for (const page of FIRST_READ) {
    const text = read(page).replaceAll(/^```[\s\S]*?^```$|<!--[\s\S]*?-->/gm, "");
    const parts = text.split(/\n\s*\n|\n(?=[|#-] ?|\d\. )/).flatMap((part) => part.split(/\||(?<=[.!?:;])\s+/));
    assert.ok(parts.length > 10, page);
    for (const part of parts) {
      const count = part.replaceAll(/`[^`]*`/g, "Code").match(/[\p{L}\p{N}]\S*/gu)?.length ?? 0;
      assert.ok(count <= MOST_WORDS, `${page}: ${count} words: ${part.replaceAll(/\s+/g, " ")}`);
    }
  }
});

test("options that every command has are listed once in the reference of commands", () => {
  const cli = read("docs/cli.md");
  for (const option of ["--server", "--api-key-file", "--as", "--verbose"]) {
    const rows = cli.match(new RegExp(`^\\| \`[^\`]*${option}\\b`, "gm"));
    assert.ok(rows !== null && rows.length <= 3, `${option}: ${rows?.length}`);
  }
});

test("every page opens with what one can do with it", () => {
  const verbs = "Check|Decide|Find|Give|Go|Learn|Let|Look up|Make|Move|Run|See|Start|Understand|Use";
  for (const page of [...pages, "docs/benchmark/report.md"].filter((name) => name !== "CHANGELOG.md")) {
    const first = read(page)
      .split("\n\n")
      .find((part) => !/^(# |<!--)/.test(part));
    assert.match(first ?? "", new RegExp(`^(?:${verbs}) `), `${page} does not say what one can do with it`);
  }
});
