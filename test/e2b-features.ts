/** The table of features in docs/e2b.md, and whether what was seen says the same. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";
import type { Scenarios } from "./e2b-scenarios.ts";

interface Feature {
  name: string;
  state: string;
  scenarios: string[];
}

async function features(): Promise<Feature[]> {
  const page = await readFile(join(packageRoot, "docs/e2b.md"), "utf8");
  const [, table = ""] = page.split("| feature | state | scenarios |\n| --- | --- | --- |\n");
  const rows = table.split("\n\n")[0]?.trim().split("\n") ?? [];
  return rows.map((row) => {
    const [, name = "", state = "", scenarios = ""] = row.split("|").map((cell) => cell.trim());
    return { name, state, scenarios: scenarios.split("; ") };
  });
}

/** What the table says, and was not so. @param all of the newest version, which has done all of them */
export async function untrue(all: Scenarios): Promise<string[]> {
  const outcomes = new Map(all.results.map(({ name, outcome }) => [name, outcome]));
  const told = await features();
  const wrong = told.flatMap(({ name, state, scenarios }) => {
    const wanted = /^yes\b/.test(state) ? "passed" : /^(by design not|not yet)\b/.test(state) ? "501 by design" : state;
    return scenarios.flatMap((scenario) => {
      const outcome = outcomes.get(scenario) ?? "not a scenario";
      return outcome === wanted ? [] : [`${name}: ${state}, but ${scenario}: ${outcome}`];
    });
  });
  const named = new Set(told.flatMap(({ scenarios }) => scenarios));
  const hidden = all.results.filter(({ name, outcome }) => outcome === "501 by design" && !named.has(name));
  return [...wrong, ...hidden.map(({ name }) => `${name}: refused, and the table does not say so`)];
}
