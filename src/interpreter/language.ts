/** The languages of the code interpreter: the program of the image that runs each, the driver that is given to it, and its wire. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { StacyError } from "../host/error.ts";
import { once } from "../host/once.ts";
import { jsonLines } from "./json-lines.ts";
import { markedStreams } from "./marked-streams.ts";
import type { CodeRequest, Wire } from "./wire.ts";

export const LANGUAGES = ["python", "javascript", "typescript", "bash"] as const;
export type Language = (typeof LANGUAGES)[number];

const OTHER_NAMES: Record<string, Language> = {
  python3: "python",
  py: "python",
  js: "javascript",
  ts: "typescript",
  sh: "bash",
};

interface Kind {
  /** What an image needs for it. */
  program: string;
  /** Words before the driver's path. */
  options: readonly string[];
  driver: string;
  wire: Wire;
}

const NODE = markedStreams({
  ask: (request) => JSON.stringify(request),
  settle: (env, seed) => JSON.stringify({ code: "", env, seed, settle: true }),
});

const KINDS: Record<Language, Kind> = {
  python: { program: "python3", options: ["-u"], driver: "python.py", wire: jsonLines },
  javascript: { program: "node", options: [], driver: "node.cjs", wire: NODE },
  typescript: { program: "node", options: [], driver: "node.cjs", wire: NODE },
  bash: {
    program: "bash",
    options: ["--norc", "--noprofile"],
    driver: "bash.sh",
    wire: markedStreams({ ask: shellText, settle: shellSettings }),
  },
};

/** @throws StacyError `not-supported`, with the languages that there are */
export function languageOf(name: string | undefined): Language {
  const lower = name?.toLowerCase() ?? "python";
  const found = LANGUAGES.find((each) => each === lower) ?? OTHER_NAMES[lower];
  if (found !== undefined) return found;
  throw new StacyError("not-supported", `code in ${name}: the code interpreter does not know this language`, {
    remedy: `use one of ${LANGUAGES.join(", ")}`,
  });
}

export function kindOf(language: Language): Kind {
  return KINDS[language];
}

const texts = new Map<string, () => Promise<Buffer>>();

/** The driver's text. */
export function driverOf(language: Language): Promise<Buffer> {
  const { driver } = KINDS[language];
  const text = texts.get(driver) ?? once(() => readFile(new URL(`drivers/${driver}`, import.meta.url)));
  texts.set(driver, text);
  return text();
}

/** Of the driver, for the key of machines that are saved with it. */
export async function driverDigest(language: Language): Promise<string> {
  return createHash("sha256")
    .update(await driverOf(language))
    .digest("hex");
}

/** Variables of one piece are taken back after it; its own status is the last one. @throws StacyError `invalid` */
function shellText({ code, env, prepare }: CodeRequest): string {
  const names = Object.keys(env);
  const wrong = names.find((name) => !isName(name));
  if (wrong !== undefined) throw new StacyError("invalid", `${JSON.stringify(wrong)} is not the name of a variable`);
  const used = prepare === true ? "" : `${USED}=1; `;
  if (names.length === 0) return `${used}${code}`;
  return [
    `${used}stacyvm_before=$(declare -p ${names.join(" ")} 2>/dev/null)`,
    ...exports(env, names),
    `source /dev/stdin <<<${quoted(code)}`,
    "stacyvm_status=$?",
    `unset ${names.join(" ")}; eval "$stacyvm_before"`,
    "(exit $stacyvm_status)",
  ].join("\n");
}

/** What the user has made of its variables stays. */
const USED = "stacyvm_used";

function shellSettings(env: Record<string, string>, seed: string): string {
  const settings = [
    `RANDOM=${Number.parseInt(seed.slice(0, 7), 16)}`,
    ...exports(env, Object.keys(env).filter(isName)),
  ];
  return [`if [ -z "\${${USED}-}" ]; then`, ...settings, "fi"].join("\n");
}

function isName(name: string): boolean {
  return /^[A-Za-z_]\w*$/.test(name);
}

function exports(env: Record<string, string>, names: readonly string[]): string[] {
  return names.map((name) => `export ${name}=${quoted(env[name] ?? "")}`);
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
