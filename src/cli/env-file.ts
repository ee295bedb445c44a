/** `--env-file FILE` as Docker reads it: one NAME=value or NAME a line, `#` begins a comment line, quotes stay as they are. */
import { readFileSync } from "node:fs";
import { InvalidArgumentError, Option } from "commander";
import { parseVariable } from "./arguments.ts";

type Variables = Record<string, string>;

export function envFileOption(): Option {
  return new Option("--env-file <file>", "environment from a file of NAME=value lines; -e goes before it").argParser(
    (path: string, earlier: Variables = {}) => ({ ...earlier, ...readEnvFile(path) }),
  );
}

function readEnvFile(path: string): Variables {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new InvalidArgumentError(`it cannot be read: ${(cause as Error).message}`);
  }
  return parseEnvFile(text);
}

/** A name that is not set here is left out. @throws InvalidArgumentError naming the line */
export function parseEnvFile(text: string): Variables {
  let variables: Variables = {};
  for (const [at, line] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    const pair = line.trimStart();
    if (pair === "" || pair.startsWith("#")) continue;
    const name = pair.split("=", 1)[0] ?? "";
    if (!/^[^\s=]+$/.test(name)) throw new InvalidArgumentError(`line ${at + 1} is not NAME=value.`);
    if (!pair.includes("=") && process.env[name] === undefined) continue;
    variables = parseVariable(pair, variables);
  }
  return variables;
}

/** Of a command with both; `undefined` when neither was given. */
export function variables({ env, envFile }: { env?: Variables; envFile?: Variables }): Variables | undefined {
  return env === undefined && envFile === undefined ? undefined : { ...envFile, ...env };
}
