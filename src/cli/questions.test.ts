/**
 * What strangers ask first, as they look for it: down README's tables, over one link, to a heading. What is counted are the words on that
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

/** The row's words, what the answer has in it, and what the row has to say by itself. */
const QUESTIONS: [row: string, answer: RegExp, inRow?: RegExp][] = [
  ["keep files when sandboxes go (volume", /Make a volume[\s\S]*stacyvm volume create/, /spawn -v data:\/data/],
  ["mount a directory", /stacyvm run -v \.\/src:\/work/],
  ["limit memory, processors, time", /--memory[\s\S]*--vcpus/, /1 GiB, 1, 1 GiB, 30 minutes.*--idle-timeout/],
  ["keep data", /`spawn --ttl [\s\S]*`checkpoint ID NAME`/],
  [
    "snapshot a running one, start copies",
    /\*\*Fork\*\* makes running copies/,
    /spawn --checkpoint NAME.*fork ID -n 3/,
  ],
  [
    "read logs, output of background programs",
    /`stacyvm logs ID`[\s\S]*the server \| its standard error[\s\S]*journalctl/,
  ],
  ["open a port (preview URL)", /stacyvm url "\$id" 8080/, /on this host; for others/],
  ["reach the internet, install packages", /--allow/, /--allow @pypi.*network ID --allow HOST/],
  [
    "give it an API key that it cannot see",
    /stacyvm secret set/,
    /`serve` running.*secret set NAME --host HOST < key\.txt/,
  ],
  [
    "run 100 at once; how many fit",
    /Memory decides/,
    /25 idle, 10 with Python.*130 idle per core.*16 GiB and 8 cores.*With KVM \(not measured\): 2 MiB/,
  ],
  ["use a Docker image or Dockerfile", /image build/, /docker save.*image import.*--allow @debian/],
  ["have Node, git, pip", /`stacyvm\/code` \| Python with pip, Node with npm, git/],
  ["use a private registry, or a proxy", /docker login/, /`NODE_USE_ENV_PROXY=1`/],
  ["give it to Claude or another model", /mcp/, /claude mcp add/],
  ["come from Docker", /`docker run --rm IMAGE CMD` \| `stacyvm run IMAGE -- CMD`/],
  ["come from E2B", /E2B_API_URL[\s\S]*E2B_SANDBOX_URL[\s\S]*E2B_API_KEY/, /E2B_API_URL.*E2B_SANDBOX_URL.*E2B_API_KEY/],
  ["compare it", /Take one of them [\s\S]*E2B, hosted[\s\S]*microsandbox[\s\S]*Vercel Sandbox/],
  [
    "run hostile code: is it safe?",
    /For hostile code you need a host with KVM/,
    /audited.*KVM hardware.*Without KVM: no/,
  ],
  [
    "know how fast it is",
    /A spawn takes a warm machine if one waits/,
    /60 ms to restore.*On KVM hardware not measured/,
  ],
  [
    "do without KVM, root or Docker",
    /KVM: to develop and test, no[\s\S]*Root: only for the system packages/,
    /no boundary/,
  ],
  ["use Windows, a Mac, ARM or a GPU", /No\. The host must be Linux on x86_64/, /No sandbox has a GPU/],
  ["run it as a service", /systemctl enable/],
  ["give several people keys", /stacyvm key create anna --owner/, /--owner anna.*`STACYVM_URL` and `STACYVM_API_KEY`/],
  [
    "use it from another computer",
    /server\.host/,
    /`STACYVM_SERVER_HOST=.*key create.*TLS.*`STACYVM_URL`.*`STACYVM_API_KEY`/,
  ],
  ["restart the server or the host", /The host reboots: .*gone/],
  [
    "back up and restore",
    /stacyvm db backup[\s\S]*stacyvm db restore/,
    /put .* back first, then `stacyvm db restore FILE --yes`/,
  ],
  ["upgrade", /Stop the server/, /git pull.*`\.data`/],
  [
    "uninstall",
    /stacyvm rm --all[\s\S]*rm -rf stacyvm/,
    /checkout: .*package: .*npm uninstall.*service: .*scripts\/packages\.txt/,
  ],
  ["see why a start failed", /there is no image/, /`--verbose`.*doctor/],
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
  const lines = section(readme, slug("How do I ...")).split("\n");
  const rows = lines.filter((line) => /^\| [^|]+ \| .+ \| .*\]\(.+\).* \|$/.test(line));
  // Nobody reads the rows above: the headings are looked through, then the first cells below one of them.
  const looked = (row: string): number => {
    const above = lines.slice(0, lines.indexOf(row));
    const group = above.slice(above.findLastIndex((line) => line.startsWith("### ")));
    const seen = [...above.filter((line) => line.startsWith("### ")), ...group.filter((line) => rows.includes(line))];
    return seen.reduce((sum, each) => sum + wordsIn(each.split(" | ")[0] ?? ""), 0);
  };
  for (const [asked, answer, inRow] of QUESTIONS) {
    const row = rows.find((each) => (each.split(" | ")[0] ?? "").includes(asked));
    assert.ok(row !== undefined, `README has no row about ${asked}`);
    if (inRow !== undefined) assert.match(row, inRow);
    const [, file = "", anchor = ""] = /\]\(([^)#]+)(?:#([^)]+))?\)/.exec(row) ?? [];
    const page = read(join(dirname("README.md"), file));
    const text = anchor === "" ? page : section(page, anchor);
    const found = answer.exec(text);
    assert.ok(found !== null, `${file}#${anchor} does not answer "${asked}"`);
    // To where the answer begins, and a first look at it.
    const words = wordsIn(row) + wordsIn(text.slice(0, found.index)) + Math.min(25, wordsIn(found[0]));
    const seconds = looked(row) / SCANNING + words / READING;
    t.diagnostic(`${asked}: ${looked(row)} words looked through, ${words} read, ${seconds.toFixed(0)} s`);
    assert.ok(seconds <= SECONDS, `${asked}: ${seconds.toFixed(0)} s`);
  }
});
