/** What makes programs of a guest trust its sandbox's authority: files, where they lie, and the variables that lead to them. */
import { createHash, X509Certificate } from "node:crypto";
import { rootCertificates } from "node:tls";
import { SUBJECT_HASH } from "./authority.ts";

const DIR = "/etc/ssl/stacyvm";
/** The authority alone, all that programs should trust, and the same for Java. */
const PATHS = { authority: `${DIR}/ca.pem`, bundle: `${DIR}/bundle.pem`, java: `${DIR}/cacerts.jks` };

/** Where distributions have what programs trust by default; the first that is there is the image's. */
export const SYSTEM_BUNDLES = [
  "/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
  "/etc/pki/tls/certs/ca-bundle.crt", // Fedora and its kin
  "/etc/ssl/ca-bundle.pem", // SUSE
  "/etc/ssl/cert.pem",
] as const;

/** Programs that do not look at the system's, or carry their own. */
export const TRUST_ENVIRONMENT: Readonly<Record<string, string>> = {
  SSL_CERT_FILE: PATHS.bundle,
  REQUESTS_CA_BUNDLE: PATHS.bundle,
  CURL_CA_BUNDLE: PATHS.bundle,
  GIT_SSL_CAINFO: PATHS.bundle,
  NODE_EXTRA_CA_CERTS: PATHS.authority,
  JAVA_TOOL_OPTIONS: `-Djavax.net.ssl.trustStore=${PATHS.java}`,
};

/** A file, or a link to one. */
export type TrustFile = { path: string; content: Buffer } | { path: string; link: string };

/**
 * @param certificate the authority's, PEM
 * @param bundle the image's own, where it has one
 * @param directory the image has a directory of single certificates, found by the hashes of their subjects
 */
export function trustFiles(certificate: string, bundle: string | undefined, directory: boolean): TrustFile[] {
  const files: TrustFile[] = [
    { path: PATHS.authority, content: Buffer.from(certificate) },
    bundle === undefined
      ? { path: PATHS.bundle, content: Buffer.from(`${rootCertificates.join("\n")}\n${certificate}`) }
      : { path: PATHS.bundle, link: bundle },
    { path: PATHS.java, content: javaKeyStore([...roots(), der(certificate)]) },
    // Where Debian's and Alpine's `update-ca-certificates` takes more from when it makes the bundle anew.
    { path: "/usr/local/share/ca-certificates/stacyvm.crt", content: Buffer.from(certificate) },
  ];
  if (directory) files.push({ path: `/etc/ssl/certs/${SUBJECT_HASH}.0`, link: PATHS.authority });
  return files;
}

let rootsInDer: Buffer[] | undefined;
function roots(): Buffer[] {
  rootsInDer ??= rootCertificates.map(der);
  return rootsInDer;
}

function der(pem: string): Buffer {
  return new X509Certificate(pem).raw;
}

/** The format "JKS" of the JDK, with trusted certificates only and the password that all such files have. */
export function javaKeyStore(certificates: readonly Buffer[]): Buffer {
  const text = (value: string): Buffer => Buffer.concat([number(value.length, 2), Buffer.from(value)]);
  const entries = certificates.flatMap((certificate, at) => [
    number(2, 4), // a trusted certificate
    text(`stacyvm-${at}`),
    Buffer.alloc(8), // made in 1970
    text("X.509"),
    number(certificate.length, 4),
    certificate,
  ]);
  const store = Buffer.concat([Buffer.from("feedfeed00000002", "hex"), number(certificates.length, 4), ...entries]);
  const password = Buffer.from("changeit", "utf16le").swap16();
  const digest = createHash("sha1").update(password).update("Mighty Aphrodite").update(store).digest();
  return Buffer.concat([store, digest]);
}

function number(value: number, bytes: 2 | 4): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
}
