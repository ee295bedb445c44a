/** What an environment is made of: a base image, and packages for it. */
import { z } from "zod";
import { StacyError } from "../host/error.ts";

export const SPEC = z.object({
  id: z.string(),
  owner: z.string(),
  /** The user that the client named. */
  user: z.string(),
  name: z.string(),
  baseImage: z.string(),
  pythonPackages: z.array(z.string()),
  aptPackages: z.array(z.string()),
  /** Said by the client, and kept for it: the base image decides. */
  pythonVersion: z.string().exactOptional(),
  createdAt: z.number(),
});
/** Times are ms since 1970. */
export type Spec = z.infer<typeof SPEC>;

/** Names with versions and extras, as pip and apt take them: no option, no white space, nothing that ends a quotation. */
const PACKAGE = /^[A-Za-z0-9][A-Za-z0-9._+\-<>=!~[\],:@/]*$/;

/** Without blanks and doubles. @throws StacyError `invalid` */
export function packageList(names: readonly string[]): string[] {
  const list = [...new Set(names.map((name) => name.trim()).filter((name) => name !== ""))];
  const wrong = list.find((name) => !PACKAGE.test(name));
  if (wrong === undefined) return list;
  throw new StacyError(
    "invalid",
    `${JSON.stringify(wrong.slice(0, 100))} is no package that pip and apt take by name`,
    {
      remedy: 'write names such as "requests==2.32" or "curl", without options and spaces',
    },
  );
}

/** As the published server builds it: the packages, and the directories that its clients count on. */
export function dockerfileOf({ baseImage, aptPackages, pythonPackages }: Spec): string {
  const quoted = (names: readonly string[]): string => names.map((name) => `'${name}'`).join(" ");
  return [
    `FROM ${baseImage}`,
    ...(aptPackages.length === 0
      ? []
      : [
          `RUN apt-get update && apt-get install -y --no-install-recommends ${quoted(aptPackages)} && rm -rf /var/lib/apt/lists/*`,
        ]),
    ...(pythonPackages.length === 0 ? [] : [`RUN pip install --no-cache-dir ${quoted(pythonPackages)}`]),
    "RUN mkdir -p /workspace /output /data",
    "WORKDIR /workspace",
    "",
  ].join("\n");
}

/** The name of the image that a build makes. */
export function imageOf(spec: Spec, buildId: string): string {
  const name = spec.name
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, "-")
    .slice(0, 24)
    .replaceAll(/^[^a-z0-9]+|[^a-z0-9]+$/g, "");
  return `local/stacyvm-env:${name || "env"}-${buildId.slice(0, 8)}`;
}
