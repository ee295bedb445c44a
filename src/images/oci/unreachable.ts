import { StacyError } from "../../host/error.ts";

/** A registry that gave no answer: in whose words, and what to do. */
export function unreachable(url: URL, error: unknown, env: NodeJS.ProcessEnv = process.env): StacyError {
  const cause = (error as { cause?: unknown }).cause ?? error;
  const words =
    cause instanceof Error && cause.message !== "" ? cause.message : String((cause as { code?: string }).code ?? cause);
  return new StacyError("unavailable", `cannot reach ${url.host}: ${words}`, {
    cause: error,
    remedy: remedyFor(url, String((cause as { code?: string }).code ?? ""), env),
  });
}

function remedyFor({ host, protocol }: URL, code: string, env: NodeJS.ProcessEnv): string {
  if (/CERT|SIGNATURE/.test(code)) {
    return "if its certificate is right, name its authority in NODE_EXTRA_CA_CERTS=FILE, or set NODE_USE_SYSTEM_CA=1";
  }
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|EPROTO/.test(code)) {
    return `if it speaks plain http, set \`insecure: true\` for ${host} in \`images.registries\``;
  }
  const proxy = [`${protocol.slice(0, -1)}_proxy`]
    .flatMap((name) => [name, name.toUpperCase()])
    .find((name) => env[name]);
  if (proxy !== undefined && env.NODE_USE_ENV_PROXY !== "1") {
    return `${proxy} is used only with NODE_USE_ENV_PROXY=1 beside it, and NO_PROXY=127.0.0.1,localhost`;
  }
  return "check the network, or import the image with `stacyvm image import`";
}
