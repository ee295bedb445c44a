/** Variables in the steps of a template. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { plainConfig } from "../../images/content.ts";
import type { ImageConfig } from "../../images/image.ts";
import { BuildStart, planOf } from "./instructions.ts";

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

function stepsOf(steps: object[], root: Partial<ImageConfig> = {}, inherited?: string) {
  const start = BuildStart.parse({ fromImage: "e2bdev/base", steps });
  const made = planOf(start, () => "", inherited).stages[0]?.steps({ ...plainConfig(), ...root }) ?? [];
  return made.filter(({ line }) => line > 0);
}

function envOf(steps: object[], root?: Partial<ImageConfig>, inherited?: string): Record<string, string> {
  const made = stepsOf(steps, root, inherited);
  return Object.assign({}, ...made.map((step) => (step.kind === "env" ? step.env : {})));
}

const env = (...args: string[]) => ({ type: "ENV", args });

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: variables of a template's
describe("variables in a template's steps", () => {
  test("the image's, those of earlier steps, defaults; what is not set is nothing", () => {
    const steps = [
      { type: "ARG", args: ["VER", "1.2"] },
      env("PATH", "/opt/bin:$PATH", "A", "v${VER}", "B", "$A"),
      env("C", "$A-${B:-none}-${NONE}$NONE"),
      env("PATH", "/more:$PATH"),
    ];
    assert.deepEqual(envOf(steps, { env: ["PATH=/bin", "A=old"] }), {
      ...{ VER: "1.2", PATH: "/more:/opt/bin:/bin", A: "v1.2" },
      ...{ B: "old", C: "v1.2-old-" },
    });
    // Processes have one, whatever the image says.
    assert.equal(envOf([env("PATH", "/x:$PATH")], { env: [] }).PATH, `/x:${DEFAULT_PATH}`);
  });

  test("quotes, backslashes and commands are text; a dollar with a backslash is a dollar", () => {
    for (const [given, meant] of [
      ['{"a": "it\'s", "b": \'$V\'}', '{"a": "it\'s", "b": \'x\'}'],
      ["$(id) `id` $1 100% $", "$(id) `id` $1 100% $"],
      ["C:\\dir\\$V \\n", "C:\\dir$V \\n"],
      ["\\${V} \\\\", "${V} \\\\"],
      ["\\d+", "\\d+"],
    ] as const) {
      assert.deepEqual(envOf([env("V", "x"), env("R", given)]), { V: "x", R: meant });
    }
  });

  test("HOME and USER are those of the step's user, unless the image or a step says so", () => {
    const home = env("R", "$USER:$HOME");
    assert.equal(envOf([home]).R, "user:/home/user");
    assert.equal(envOf([{ type: "USER", args: ["root"] }, home]).R, "root:/root");
    assert.equal(envOf([{ type: "USER", args: ["root:root"] }, home]).R, "root:/root");
    assert.equal(envOf([home], {}, "root").R, "root:/root");
    const other = [{ type: "USER", args: ["postgres"] }, home];
    assert.equal(envOf(other, { env: ["HOME=/var/lib/pg"] }).R, "postgres:/var/lib/pg");
    assert.throws(() => envOf(other), { message: /^step 2, ENV: the home of the user postgres/, data: { line: 2 } });
  });

  test("directories, users and where a copy goes have them too; sources and commands have not", () => {
    const steps = stepsOf([
      env("APP", "/srv/app", "WHO", "root"),
      { type: "WORKDIR", args: ["$APP"] },
      { type: "COPY", args: ["$APP", "${APP}/in", "$WHO"], filesHash: "ab" },
      { type: "USER", args: ["$WHO"] },
      { type: "WORKDIR", args: ["x"] },
      { type: "RUN", args: ["echo $APP"] },
    ]);
    const [, workdir, copy, user, second, run] = steps;
    assert.ok(workdir?.kind === "workdir" && copy?.kind === "copy" && user?.kind === "user" && run?.kind === "run");
    assert.deepEqual([workdir.path, copy.to, copy.owner, user.user], ["/srv/app", "/srv/app/in", "root", "root"]);
    assert.deepEqual([copy.sources, run.argv.at(-1)], [["ab/$APP"], "echo $APP"]);
    assert.ok(second?.kind === "workdir" && second.owner === "root");
  });

  test("what cannot be replaced is told before anything is built, with its step", () => {
    for (const wrong of ["${V", "${V^^}", "${}"]) {
      const start = BuildStart.parse({ fromImage: "e2bdev/base", steps: [env("A", "1"), env("B", wrong)] });
      assert.throws(
        () => planOf(start, () => ""),
        (error) => {
          assert.ok(error instanceof StacyError);
          assert.match(error.message, /^step 2, ENV: /);
          assert.deepEqual([error.code, error.data?.line], ["invalid", 2]);
          return true;
        },
      );
    }
    assert.throws(() => envOf([env("A", "${B:?is needed}")]), { message: "step 1, ENV: B: is needed" });
  });

  test("a few steps do not become any amount of text", () => {
    const steps = [env("A", "x".repeat(1_000)), ...Array.from({ length: 40 }, () => env("A", "$A$A"))];
    assert.throws(() => envOf(steps), { code: "invalid", message: /^step \d+, ENV: .*too long/ });
  });
});
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: variables of a template's
