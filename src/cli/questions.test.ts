/**
 * What strangers ask first, as they look for it: down README's table, over one link, to a heading. What is counted are the words on that
 * way, at the pace of silent reading.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../host/paths.ts";

/** Words a second. Silent reading of English non-fiction (M. Brysbaert, "How many words do we read per minute?", 2019). */
const READING = 238 / 60;
/** Looking for a word, in a list of them (R. Carver, "Reading Rate", 1990: scanning). */
const SCANNING = 600 / 60;
const SECONDS = 30;

/** The row's words, and what the answer has in it. */
const QUESTIONS: [row: string, answer: RegExp][] = [
  ["mount a directory", /No\. A sandbox shares no files .*Copy instead/],
  ["keep data", /`spawn --ttl [\s\S]*`checkpoint ID NAME`/],
  ["read logs", /`stacyvm logs ID`[\s\S]*the server \| its standard error[\s\S]*journalctl/],
  ["open a port (preview URL)", /stacyvm url "\$id" 8080/],
  ["reach the internet", /--allow/],
  ["run 100 at once", /Memory decides/],
  ["use Windows, a Mac or ARM", /No\. The host must be Linux on x86_64/],
  ["have Node, git, pip", /`stacyvm\/code` \| Python with pip, Node with npm, git/],
  ["use a Docker image or Dockerfile", /image build/],
  ["come from Docker", /`docker run --rm IMAGE CMD` \| `stacyvm run IMAGE -- CMD`/],
  ["come from E2B", /E2B_API_URL.*E2B_SANDBOX_URL[\s\S]*E2B_API_KEY/],
  ["compare it", /E2B, hosted[\s\S]*microsandbox[\s\S]*Vercel Sandbox/],
  ["language model", /mcp/],
  ["run it as a service", /systemctl enable/],
  ["restart the server or the host", /The host reboots: .*gone/],
  ["back up", /stacyvm db backup[\s\S]*stacyvm db restore/],
  ["uninstall", /stacyvm rm --all[\s\S]*rm -rf stacyvm/],
];

const read = (name: string): string => readFileSync(join(packageRoot, name), "utf8");
const wordsIn = (text: string): number => text.match(/[\p{L}\p{N}][^\s|]*/gu)?.length ?? 0;

function slug(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

/** From a heading to the next one of its level or above. */
function section(markdown: string, anchor: string): string {
  const headings = [...markdown.matchAll(/^(#+) (.+)$/gm)];
  const at = headings.findIndex(([, , title = ""]) => slug(title) === anchor);
  assert.ok(at >= 0, anchor);
  const level = headings[at]?.[1]?.length ?? 0;
  const next = headings.slice(at + 1).find(([, marks = ""]) => marks.length <= level);
  return markdown.slice(headings[at]?.index, next?.index);
}

test("what strangers ask first is answered within 30 seconds of reading: README's row, one link, the heading that it leads to", (t) => {
  const readme = read("README.md");
  const rows: string[] = section(readme, slug("How do I ...")).match(/^\| [^|]+ \| .+ \| .*\]\(.+\).* \|$/gm) ?? [];
  // Nobody reads the rows above: their first cells are looked through.
  const looked = (row: string): number =>
    rows.slice(0, rows.indexOf(row)).reduce((sum, each) => sum + wordsIn(each.split(" | ")[0] ?? ""), 0);
  for (const [asked, answer] of QUESTIONS) {
    const row = rows.find((each) => (each.split(" | ")[0] ?? "").includes(asked));
    assert.ok(row !== undefined, `README has no row about ${asked}`);
    const [, file = "", anchor = ""] = /\]\(([^)#]+)#([^)]+)\)/.exec(row) ?? [];
    assert.ok(anchor !== "", `the row about ${asked} leads to no heading`);
    const text = section(read(join(dirname("README.md"), file)), anchor);
    const found = answer.exec(text);
    assert.ok(found !== null, `${file}#${anchor} does not answer "${asked}"`);
    // To where the answer begins, and a first look at it.
    const words = wordsIn(row) + wordsIn(text.slice(0, found.index)) + Math.min(25, wordsIn(found[0]));
    const seconds = looked(row) / SCANNING + words / READING;
    t.diagnostic(`${asked}: ${looked(row)} words looked through, ${words} read, ${seconds.toFixed(0)} s`);
    assert.ok(seconds <= SECONDS, `${asked}: ${seconds.toFixed(0)} s`);
  }
});
