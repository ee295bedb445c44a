import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { StacyError } from "../host/error.ts";
import { plainConfig } from "../images/content.ts";
import { configAfter, type Step } from "./plan.ts";
import { readPlan } from "./read-plan.ts";

const BASE = { ...plainConfig(), env: ["PATH=/bin"], cmd: ["base"] };

function steps(text: string, args?: Record<string, string>): Step[] {
  return readPlan(text, args).steps(BASE);
}

function refused(text: string, code: string, words: RegExp): void {
  assert.throws(
    () => steps(text),
    (error: unknown) => {
      assert.ok(error instanceof StacyError, String(error));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, words);
      return true;
    },
  );
}

describe("a Dockerfile", () => {
  test("comments, continuations, both forms of commands, quotes and variables", () => {
    const text = `
# syntax=docker/dockerfile:1
ARG BASE=python:3
FROM \${BASE} AS only
ARG WHO=world
ARG OTHER
ENV PATH=/opt/bin:$PATH A="b c" \\
    # between the lines
    D='$A' E=x\\ y
ENV OLD form of it
WORKDIR /app
WORKDIR sub/$A
RUN echo $PATH | \\
    cat
RUN ["echo", "$PATH"]
COPY --chown=\${OLD}:0 --chmod=0755 a.txt "b c" \${MISSING:-fallback} dir/
COPY ["x y", "/z"]
EXPOSE 80 53/udp
CMD ["run", "it"]
ENTRYPOINT exec \${NOT_OURS}
LABEL "a b"="c d" e=f
STOPSIGNAL SIGINT
USER app`;
    const plan = readPlan(text, { BASE: "team/base:2", OTHER: "given" });
    assert.equal(plan.from, "team/base:2");
    const list = plan.steps(BASE);
    assert.deepEqual(
      list.map(({ text: _text, line, ...step }) => [line, step]),
      [
        [7, { kind: "env", env: { PATH: "/opt/bin:/bin", A: "b c", D: "$A", E: "x y" } }],
        [10, { kind: "env", env: { OLD: "form of it" } }],
        [11, { kind: "workdir", path: "/app" }],
        [12, { kind: "workdir", path: "sub/b c" }],
        [13, { kind: "run", argv: ["/bin/sh", "-c", "echo $PATH |     cat"], env: { WHO: "world", OTHER: "given" } }],
        [15, { kind: "run", argv: ["echo", "$PATH"], env: { WHO: "world", OTHER: "given" } }],
        [16, { kind: "copy", sources: ["a.txt", "b c", "fallback"], to: "dir/", owner: "form of it:0", mode: 0o755 }],
        [17, { kind: "copy", sources: ["x y"], to: "/z" }],
        [18, { kind: "expose", ports: ["80/tcp", "53/udp"] }],
        [19, { kind: "cmd", argv: ["run", "it"] }],
        [20, { kind: "entrypoint", argv: ["/bin/sh", "-c", `exec \${NOT_OURS}`] }],
        [21, { kind: "label", labels: { "a b": "c d", e: "f" } }],
        [22, { kind: "stop-signal", signal: "SIGINT" }],
        [23, { kind: "user", user: "app" }],
      ],
    );
    assert.deepEqual(configAfter(BASE, list), {
      env: ["PATH=/opt/bin:/bin", "A=b c", "D=$A", "E=x y", "OLD=form of it"],
      cwd: "/app/sub/b c",
      user: "app",
      entrypoint: ["/bin/sh", "-c", `exec \${NOT_OURS}`],
      cmd: ["run", "it"],
      labels: { "a b": "c d", e: "f" },
      exposedPorts: ["80/tcp", "53/udp"],
      stopSignal: "SIGINT",
    });
  });

  test("an entry point alone takes the base's command away", () => {
    assert.deepEqual(configAfter(BASE, steps('FROM x\nENTRYPOINT ["a"]')).cmd, []);
    assert.deepEqual(configAfter(BASE, steps("FROM x\nUSER 1")).cmd, ["base"]);
  });

  test("what is not supported is named with its line, never left out", () => {
    refused("FROM a\nFROM b", "not-supported", /line 2: a second FROM/);
    refused("FROM a\n\nADD x /x", "not-supported", /line 3: ADD/);
    refused("FROM a\nRUN --mount=type=cache x", "not-supported", /RUN --mount/);
    refused("FROM a\nRUN cat <<EOF\nx\nEOF", "not-supported", /here-document/);
    refused("FROM a\nCOPY --from=other /a /b", "not-supported", /COPY --from/);
    refused("FROM a\nVOLUME /data", "not-supported", /VOLUME/);
    refused("FROM a\nHEALTHCHECK NONE", "not-supported", /HEALTHCHECK/);
    refused("FROM scratch", "not-supported", /scratch/);
    refused("ARG A=1\nRUN x", "invalid", /comes before FROM/);
    refused("FROM a\nCOPY one", "invalid", /source and a destination/);
    refused('FROM a\nENV A="b', "invalid", /quote/);
    refused("FROM a\nRUN", "invalid", /says nothing/);
    refused("ARG A=1", "invalid", /no FROM/);
    refused(`FROM a\nENV A=\${B?no}`, "invalid", /substitution/);
  });
});

describe("a declarative file", () => {
  test("its steps in order, and what holds for the whole image", () => {
    const plan = readPlan(`
from: stacyvm/python
env: {LEVEL: 3}
workdir: /app
steps:
  - copy: [one, two, dest/]
  - copy: {from: src, to: ., owner: "1000:1000", mode: 0640}
  - run: |
      echo one
      echo two
  - run: [python3, -V]
  - env: {DONE: true}
  - workdir: /srv
  - user: 1000
entrypoint: [python3]
cmd: [app.py]
labels: {team: blue}
`);
    assert.equal(plan.from, "stacyvm/python");
    const list = plan.steps(BASE);
    assert.deepEqual(
      list.map(({ text: _text, line, ...step }) => [line, step]),
      [
        [3, { kind: "env", env: { LEVEL: "3" } }],
        [4, { kind: "workdir", path: "/app" }],
        [6, { kind: "copy", sources: ["one", "two"], to: "dest/" }],
        [7, { kind: "copy", sources: ["src"], to: ".", owner: "1000:1000", mode: 0o640 }],
        [8, { kind: "run", argv: ["/bin/sh", "-e", "-c", "echo one\necho two\n"], env: {} }],
        [11, { kind: "run", argv: ["python3", "-V"], env: {} }],
        [12, { kind: "env", env: { DONE: "true" } }],
        [13, { kind: "workdir", path: "/srv" }],
        [14, { kind: "user", user: "1000" }],
        [15, { kind: "entrypoint", argv: ["python3"] }],
        [16, { kind: "cmd", argv: ["app.py"] }],
        [17, { kind: "label", labels: { team: "blue" } }],
      ],
    );
  });

  test("a mistake is named with its line", () => {
    refused("from: a\nsteps:\n  - run: x\n  - runs: y", "invalid", /line 4: steps\.1/);
    refused("steps: []", "invalid", /from/);
    refused("from: a\nextra: 1", "invalid", /extra/);
    refused("from: [", "invalid", /YAML/);
    refused("from: a\nenv: {1a: b}", "invalid", /env/);
  });
});
