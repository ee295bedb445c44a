/**
 * README, docs, examples and SDK as a reader takes them: every block of code runs, links lead somewhere, and the error messages that
 * are explained exist. A block is left out only by a comment above it that says why: `<!-- not run: REASON -->`. Blocks of a
 * document share one directory, one shell and one server, which stands in for `http://127.0.0.1:7423`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { access, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { loadConfig } from "../src/config/load.ts";
import { packageRoot } from "../src/host/paths.ts";
import { ownPython, sdkPython } from "./python-support.ts";
import { Server } from "./server-support.ts";

const exec = promisify(execFile);
const LIMIT_MS = 120_000;

interface Block {
  language: string;
  code: string;
  /** Why it is left out. */
  reason: string | undefined;
  line: number;
}

function blocksOf(markdown: string): Block[] {
  const fence = /(?:^<!-- not run: (.+?) -->\n)?^```(\w*)\n([\s\S]*?)^```$/gm;
  return [...markdown.matchAll(fence)].map((match) => ({
    reason: match[1],
    language: match[2] ?? "",
    code: match[3] ?? "",
    line: markdown.slice(0, match.index).split("\n").length,
  }));
}

const documents = ["README.md", "examples/README.md", "sdk/README.md", "python/README.md", "docs/benchmark/report.md"];
for (const name of await readdir(join(packageRoot, "docs"))) if (name.endsWith(".md")) documents.push(`docs/${name}`);
const read = (document: string): Promise<string> => readFile(join(packageRoot, document), "utf8");

describe("code in the documents", { timeout: 300_000 }, () => {
  let server: Server;
  let env: NodeJS.ProcessEnv;
  before(async () => {
    server = await Server.create();
    const bin = join(server.root, "bin");
    const modules = join(server.root, "node_modules", "@stacyvm", "sdk");
    await mkdir(bin);
    await mkdir(modules, { recursive: true });
    await symlink(join(packageRoot, "bin", "stacyvm"), join(bin, "stacyvm"));
    // The SDK under the name that it is published by.
    const exports: Record<string, string> = {};
    for (const [name, file] of [
      [".", "index"],
      ["./mock", "mock"],
    ] as const) {
      exports[name] = `./${file}.js`;
      const source = pathToFileURL(join(packageRoot, `sdk/src/${file}.ts`)).href;
      await writeFile(join(modules, `${file}.js`), `export * from ${JSON.stringify(source)};\n`);
    }
    await writeFile(join(modules, "package.json"), JSON.stringify({ type: "module", exports }));
    env = {
      ...process.env,
      PATH: `${bin}:${dirname(process.execPath)}:${process.env.PATH}`,
      STACYVM_DATA_DIR: server.root,
      STACYVM_URL: server.url,
    };
  });
  after(() => server[Symbol.asyncDispose]());

  const run = (program: string, args: string[]) =>
    exec(program, args, { cwd: server.root, env, timeout: LIMIT_MS, killSignal: "SIGKILL" });
  const runners: Record<string, (code: string, name: string) => Promise<unknown>> = {
    async ts(code, name) {
      const path = join(server.root, `${name}.mts`);
      await writeFile(path, code);
      return run(process.execPath, [path]);
    },
    python: async (code) => run(await (code.includes("stacyvm_sdk") ? ownPython() : sdkPython()), ["-c", code]),
    async yaml(code, name) {
      // Configuration: the server must know every key and take every value.
      const file = join(server.root, `${name}.yaml`);
      await writeFile(file, code);
      await loadConfig({ file, env: {} });
    },
  };

  for (const document of documents) {
    const blocks = blocksOf(readFileSync(join(packageRoot, document), "utf8"));
    if (blocks.length === 0) continue;
    test(document, async (t) => {
      const shell: string[] = [];
      for (const { language, code, reason, line } of blocks) {
        const own = code.replaceAll("http://127.0.0.1:7423", server.url);
        if (reason !== undefined) t.diagnostic(`line ${line} is not run: ${reason}`);
        else if (language === "sh") shell.push(own);
        else {
          const runner = runners[language];
          const where = `${document}:${line}`;
          assert.ok(runner, `${where}: nothing runs "${language}"; say why with <!-- not run: ... -->`);
          await runner(own, `block-${line}`);
        }
      }
      if (shell.length > 0) await run("bash", ["-euo", "pipefail", "-c", shell.join("\n")]);
      for (const { id } of (await server.call("GET", "/sandboxes")).body)
        await server.call("DELETE", `/sandboxes/${id}`);
    });
  }
});

/** The anchors of a document, as pages of code hosts make them of headings. */
function anchors(markdown: string): Set<string> {
  const headings = markdown.replaceAll(/^```[\s\S]*?^```$/gm, "").matchAll(/^#+ (.+)$/gm);
  return new Set(
    [...headings].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

test("links between the documents lead somewhere, to the very heading that they name", async () => {
  for (const document of documents) {
    for (const [, target = "", anchor = ""] of (await read(document)).matchAll(/\]\(([^)#]*)(?:#([^)]*))?\)/g)) {
      if (/^https?:/.test(target)) continue;
      const file = target === "" ? document : join(dirname(document), target);
      await access(join(packageRoot, file));
      if (anchor !== "" && file.endsWith(".md"))
        assert.ok(anchors(await read(file)).has(anchor), `${document} leads to ${file}#${anchor}, which is not there`);
    }
  }
});

test("the messages that troubleshooting explains are the program's", async () => {
  let source = "";
  for (const name of await readdir(join(packageRoot, "src"), { recursive: true }))
    if (name.endsWith(".ts")) source += await read(join("src", name));
  const rows = (await read("docs/troubleshooting.md")).matchAll(/^\| `([^`]+)`/gm);
  const parts = [...rows].flatMap(([, words = ""]) => words.split("...")).map((part) => part.trim());
  for (const part of parts) assert.ok(source.includes(part), `nothing says "${part}"`);
});
