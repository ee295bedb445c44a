import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { StacyError } from "../host/error.ts";
import { plainConfig } from "../images/content.ts";
import { configAfter } from "./configuration.ts";
import { SCRIPT, type Step } from "./plan.ts";
import { readPlan } from "./read-plan.ts";

const BASE = { ...plainConfig(), env: ["PATH=/bin"], cmd: ["base"] };

function steps(text: string, args: Record<string, string> = {}): Step[] {
  const plan = readPlan(text, { args });
  return plan.stages[plan.target]?.steps(BASE) ?? [];
}

function refused(text: string, code: string, words: RegExp): void {
  assert.throws(
    () => steps(text),
    (error: unknown) => {
      assert.ok(error instanceof StacyError, String(error));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, words);
      if (code === "not-supported") assert.ok(error.remedy);
      return true;
    },
  );
}

describe("a Dockerfile", () => {
  test("names that every object of JavaScript knows are arguments like any other", () => {
    const text =
      "ARG toString\nARG valueOf=v\nFROM base\nARG constructor\nARG valueOf\nENV A=$constructor$toString B=$valueOf";
    assert.deepEqual(
      steps(text).map(({ kind, ...step }) => [kind, "env" in step && step.env]),
      [["env", { A: "", B: "v" }]],
    );
    assert.equal(readPlan("ARG toString=x\nFROM $toString").stages[0]?.from.kind, "image");
  });

  test("a base that says no PATH has the one that its processes have", () => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the Dockerfile's
    const [step] = readPlan("FROM base\nENV PATH=/x:${PATH}").stages[0]?.steps({ ...BASE, env: [] }) ?? [];
    assert.ok(step?.kind === "env");
    assert.equal(step.env.PATH, "/x:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  });

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
    const args = { BASE: "team/base:2", OTHER: "given" };
    assert.deepEqual(readPlan(text, { args }).stages[0]?.from, { kind: "image", reference: "team/base:2" });
    const list = steps(text, args);
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

  test("stages: by name and number, each with what it begins with and copies from; arguments and shells are handed on", () => {
    const text = `
ARG TAG=1
FROM --platform=$BUILDPLATFORM lib:$TAG AS Build
ARG TARGETARCH
ARG MODE=fast
SHELL ["/bin/bash", "-c"]
RUN make $MODE
FROM build
RUN test
FROM scratch AS last
COPY --from=BUILD --link /out/ /
COPY --from=1 a b /x/
COPY --from=other:2 a /
ONBUILD COPY . /src
`;
    const plan = readPlan(text, { args: { MODE: "slow" } });
    assert.equal(plan.target, 2);
    assert.equal(readPlan(text, { target: "build" }).target, 0);
    assert.equal(readPlan(text, { target: "1" }).target, 1);
    assert.throws(() => readPlan(text, { target: "none" }), /no stage none/);
    assert.deepEqual(
      plan.stages.map(({ name, from }) => [name, from]),
      [
        ["build", { kind: "image", reference: "lib:1" }],
        ["1", { kind: "stage", stage: 0 }],
        ["last", { kind: "nothing" }],
      ],
    );
    const brief = (stage: number) =>
      plan.stages[stage]?.steps(BASE).map(({ text: _text, line: _line, ...step }) => step);
    const env = { TARGETARCH: process.arch === "x64" ? "amd64" : process.arch, MODE: "slow" };
    assert.deepEqual(brief(0), [{ kind: "run", argv: ["/bin/bash", "-c", "make $MODE"], env }]);
    assert.deepEqual(brief(1), [{ kind: "run", argv: ["/bin/bash", "-c", "test"], env }]);
    const stage = (n: number) => ({ kind: "stage", stage: n });
    assert.deepEqual(brief(2), [
      { kind: "copy", sources: ["/out/"], to: "/", from: stage(0) },
      { kind: "copy", sources: ["a", "b"], to: "/x/", from: stage(1) },
      { kind: "copy", sources: ["a"], to: "/", from: { kind: "image", reference: "other:2" } },
      { kind: "on-build", instruction: "COPY . /src" },
    ]);
  });

  test("what a base puts off is done first by who begins with it", () => {
    const base = { ...BASE, onBuild: ["WORKDIR /of/base", "COPY . ."] };
    const list = readPlan("FROM x\nRUN y").stages[0]?.steps(base) ?? [];
    assert.deepEqual(
      list.map(({ kind }) => kind),
      ["workdir", "copy", "run"],
    );
    assert.equal(configAfter(base, list).onBuild, undefined);
    const own = readPlan("FROM x AS a\nONBUILD USER 7\nFROM a").stages[1]?.steps(BASE);
    assert.deepEqual(
      own?.map(({ kind }) => kind),
      ["user"],
    );
  });

  test("here-documents: for the shell, as a program, as files", () => {
    const list = steps(`FROM x
ENV WHO=me
RUN <<EOF
  echo one $WHO
# no comment
EOF
RUN <<-"END"
\tindented \\
\tEND
RUN <<EOF
#!/usr/bin/env python3
print(1)
EOF
RUN cat <<A - 3<<B && echo 'a <<no'
first
A
second
B
COPY <<EOF <<'RAW' two.txt /files/
Hello "$WHO" \\$WHO
EOF
$WHO
RAW
RUN cat <<<here`);
    const of = (kind: string) => list.filter((step) => step.kind === kind);
    assert.deepEqual(
      of("run").map((step) => (step.kind === "run" ? [step.argv.at(-1), step.script] : [])),
      [
        ["  echo one $WHO\n# no comment\n", undefined],
        ["indented \\\n", undefined],
        [SCRIPT, "#!/usr/bin/env python3\nprint(1)\n"],
        ["cat <<A - 3<<B && echo 'a <<no'\nfirst\nA\nsecond\nB", undefined],
        ["cat <<<here", undefined],
      ],
    );
    const [copy] = of("copy");
    assert.deepEqual(copy?.kind === "copy" ? copy.sources : [], [
      { name: "EOF", content: 'Hello "me" $WHO\n' },
      { name: "RAW", content: "$WHO\n" },
      "two.txt",
    ]);
    refused("FROM x\nRUN <<EOF\nnever", "invalid", /line 2: the here-document has no end/);
  });

  test("variables in every form that Docker knows", () => {
    const cases: [string, string][] = [
      ["$V", "a/b.tar.gz"],
      [`\${V}x`, "a/b.tar.gzx"],
      ["$Vx", ""],
      ["\\$V", "$V"],
      ["'$V'", "$V"],
      ['"$V"', "a/b.tar.gz"],
      [`\${NO:-d}`, "d"],
      [`\${E:-d}`, "d"],
      [`\${E-d}`, ""],
      [`\${V:+s}`, "s"],
      [`\${E+s}`, "s"],
      [`\${E:+s}`, ""],
      [`\${NO:-\${V}}`, "a/b.tar.gz"],
      [`\${V:?why}`, "a/b.tar.gz"],
      [`\${V#*/}`, "b.tar.gz"],
      [`\${V##*.}`, "gz"],
      [`\${V%.*}`, "a/b.tar"],
      [`\${V%%.*}`, "a/b"],
      [`\${V/a/x}`, "x/b.tar.gz"],
      [`\${V//./-}`, "a/b-tar-gz"],
      [`\${V%?z}`, "a/b.tar."],
      ["$", "$"],
    ];
    for (const [word, wanted] of cases) {
      const [, step] = steps(`FROM x\nENV V=a/b.tar.gz E=\nLABEL l=${word}`);
      assert.deepEqual(step?.kind === "label" ? step.labels : undefined, { l: wanted }, word);
    }
    refused(`FROM x\nENV A=\${NO:?needed}`, "invalid", /line 2: ENV: NO: needed/);
    // Values of one line do not see each other.
    const [, together] = steps("FROM x\nENV A=old\nENV A=new B=$A");
    assert.deepEqual(together?.kind === "env" ? together.env : undefined, { A: "new", B: "old" });
  });

  test("volumes, an escape character of its own, what changes nothing", () => {
    const list = steps(
      '# syntax=x\n# escape=`\nFROM a\nVOLUME /data "/b c"\nVOLUME ["/json"]\nRUN a `\n  b\\\nHEALTHCHECK NONE\nRUN --network=default c',
    );
    assert.deepEqual(configAfter(BASE, list).volumes, ["/data", "/b c", "/json"]);
    assert.deepEqual(
      list.filter(({ kind }) => kind === "run").map((step) => (step.kind === "run" ? step.argv.at(-1) : "")),
      ["a   b\\", "c"],
    );
    const quoted = steps('# escape=`\nFROM a\nENV D=a`"b E="c`"d" F=C:\\dir G=y`\nz');
    assert.deepEqual(configAfter(BASE, quoted).env.slice(-4), ['D=a"b', 'E=c"d', "F=C:\\dir", "G=yz"]);
  });

  test("a label has a name; a first line that is no instruction is told as one of a Dockerfile", () => {
    refused('FROM a\nLABEL ""=c', "invalid", /line 2: LABEL.*a name is empty/);
    refused("FROM a\nLABEL __proto__=c", "invalid", /line 2: LABEL.*__proto__ is no name that a label may have/);
    refused("FORM a", "invalid", /line 1: .*FORM/);
  });

  test("what is not supported is named with its line and a way round it, never left out", () => {
    const unsupported = (text: string, words: RegExp): void => refused(text, "not-supported", words);
    unsupported("FROM a\n\nADD https://pkg.example/x.tar /x", /line 3: ADD of the URL/);
    unsupported("FROM a\nADD git@code.example:a/b.git /x", /line 2: ADD of the git source/);
    unsupported("FROM a\nADD https://code.example/a/b.git#main /x", /ADD of the git source/);
    unsupported("FROM a\nADD --checksum=sha256:1 x /x", /ADD --checksum/);
    unsupported("FROM a\nRUN --mount=type=cache,target=/c x", /line 2: RUN --mount/);
    unsupported("FROM a\nRUN --network=none x", /RUN --network/);
    unsupported("FROM a\nCOPY --parents a /b", /COPY --parents/);
    unsupported("FROM a\nHEALTHCHECK CMD true", /line 2: HEALTHCHECK/);
    unsupported("FROM --platform=linux/riscv64 a", /line 1: FROM --platform=linux\/riscv64/);
    unsupported("FROM a\nFETCH b", /the instruction FETCH/);
    refused("FROM a\nCOPY --from=1 /a /b\nFROM b", "invalid", /line 2: COPY: there is no stage 1 above/);
    refused("FROM a\nONBUILD FROM b", "invalid", /cannot be put off/);
    refused("ARG A=1\nRUN x", "invalid", /comes before FROM/);
    refused("FROM a\nCOPY one", "invalid", /source and a destination/);
    refused('FROM a\nENV A="b', "invalid", /quote/);
    refused("FROM a\nRUN", "invalid", /says nothing/);
    refused("FROM a AS", "invalid", /names no image/);
    refused("ARG A=1", "invalid", /no FROM/);
    refused(`FROM a\nENV A=\${B^^}`, "invalid", /substitution/);
    refused("FROM a\nVOLUME data", "invalid", /not absolute/);
    for (const port of ["99999", "http", "80/icmp", "20-10", "-1", "80/"])
      refused(`FROM a\nEXPOSE 80 ${port}`, "invalid", /line 2: EXPOSE: .* is no port/);
    for (const signal of ["NOSIG", "99", "0", "SIG"])
      refused(`FROM a\nARG S=${signal}\nSTOPSIGNAL $S`, "invalid", /line 3: STOPSIGNAL: .* is no signal/);
    // Before anything asks for the base.
    for (const line of ["EXPOSE http", "STOPSIGNAL NOSIG", "VOLUME data"])
      assert.throws(() => readPlan(`FROM a\n${line}`));
    refused("RUN x\nFROM a", "invalid", /line 1: RUN: comes before FROM/);
    for (const nothing of ["", "\n \n", "# syntax=docker/dockerfile:1\n"]) refused(nothing, "invalid", /is empty/);
  });

  test("a copy's mode: octal or symbols", () => {
    const mode = (text: string): unknown => {
      const copy = steps(`FROM a\nARG M=u=rwx,go=r\nCOPY --chmod=${text} a b`).find(({ kind }) => kind === "copy");
      return copy?.kind === "copy" && copy.mode;
    };
    assert.deepEqual(["644", "0755", "+x", "u=rwX,go=rX", "$M"].map(mode), [
      0o644,
      0o755,
      "+x",
      "u=rwX,go=rX",
      "u=rwx,go=r",
    ]);
    for (const odd of ["rwx", "999", "u=rwz", "77777"])
      refused(`FROM a\nCOPY --chmod=${odd} a b`, "invalid", /line 2: COPY: --chmod=.* is no mode/);
  });

  test("a variable has any name that the system takes", () => {
    const list = steps(
      `FROM a\nARG some.arg=1\nENV discovery.type=single-node 1st=a my-name=b __proto__=c\nENV xpack.security.enabled false`,
    );
    assert.deepEqual(
      list.map((step) => (step.kind === "env" ? Object.entries(step.env) : [])),
      [
        [
          ["discovery.type", "single-node"],
          ["1st", "a"],
          ["my-name", "b"],
          ["__proto__", "c"],
        ],
        [["xpack.security.enabled", "false"]],
      ],
    );
    for (const line of ["ENV =x", "ENV a=1 =x", `ENV ""=x`, "ARG =x"])
      refused(`FROM a\n${line}`, "invalid", /line 2: .*empty/);
    const [variables] = readPlan("from: a\nenv: {discovery.type: single-node}").stages[0]?.steps(plainConfig()) ?? [];
    assert.deepEqual(variables?.kind === "env" ? variables.env : {}, { "discovery.type": "single-node" });
  });

  test("ports and signals that engines take are taken", () => {
    for (const port of ["0", "65535", "8000-8010", "53/UDP", "1-2/sctp", `\${P}`])
      steps(`FROM a\nARG P=80\nEXPOSE ${port}`);
    const [exposed] = steps("FROM a\nEXPOSE 8000-8002 53/UDP 9-10/sctp 8001");
    const ports = ["8000/tcp", "8001/tcp", "8002/tcp", "53/udp", "9/sctp", "10/sctp"];
    assert.deepEqual(exposed?.kind === "expose" && exposed.ports, [...ports, "8001/tcp"]);
    assert.deepEqual(exposed && configAfter(BASE, [exposed]).exposedPorts, ports);
    for (const signal of ["9", "kill", "SIGRTMIN+3", "RTMAX-1"]) steps(`FROM a\nSTOPSIGNAL ${signal}`);
  });
});

describe("a declarative file", () => {
  test("nothing of it is printed by the parser", async (t) => {
    const printed: string[] = [];
    const listen = (warning: Error): void => {
      printed.push(warning.message);
    };
    process.on("warning", listen);
    t.after(() => process.off("warning", listen));
    for (const text of ["from: a\n? [ x ]\n: y", "from: a\nsteps: !mine []", "%MINE 1\n---\nfrom: a"]) {
      try {
        steps(text);
      } catch (error) {
        assert.ok(error instanceof StacyError, String(error));
      }
      await new Promise((wake) => setImmediate(wake));
    }
    assert.deepEqual(printed, []);
  });

  test("its steps in order, and what holds for the whole image", () => {
    const text = `
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
`;
    assert.deepEqual(readPlan(text).stages[0]?.from, { kind: "image", reference: "stacyvm/python" });
    const list = steps(text);
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
    refused("from: a\nenv: {1=a: b}", "invalid", /env/);
  });
});
