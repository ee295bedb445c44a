/**
 * The certificate authority of one sandbox. Its guest trusts it, nobody else does; with it the host speaks TLS in the place of the hosts
 * of secrets. The certificate's subject is the same for all, so that the name which OpenSSL looks it up by is known (trust.ts).
 */
import { isIP } from "node:net";
import type * as X509 from "@peculiar/x509";
import { once } from "../../host/once.ts";

/** PEM. The key stays on the host. */
export interface Authority {
  certificate: string;
  key: string;
}

/** PEM: the host's own certificate and the authority's behind it, and the key of the first. */
export interface HostCertificate {
  cert: string;
  key: string;
}

export const SUBJECT = "CN=StacyVM sandbox CA";
/** `openssl x509 -hash` of that subject. */
export const SUBJECT_HASH = "42959686";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 86_400_000;
/** A clock in a guest may be behind. */
const BEFORE_MS = 2 * DAY_MS;
const AUTHORITY_MS = 3_650 * DAY_MS;
/** What clients take of an authority of their own. */
const HOST_MS = 365 * DAY_MS;

/** Loaded when the first secret is used: most servers have none. */
const x509: () => Promise<typeof X509> = once(() => import("reflect-metadata").then(() => import("@peculiar/x509")));

export async function makeAuthority(): Promise<Authority> {
  const { X509CertificateGenerator, BasicConstraintsExtension, KeyUsagesExtension, KeyUsageFlags, ...more } =
    await x509();
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: SUBJECT,
    keys,
    signingAlgorithm: ALGORITHM,
    ...validFor(AUTHORITY_MS),
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await more.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: `${certificate.toString("pem")}\n`, key: await privatePem(keys.privateKey) };
}

/** What every certificate of an authority needs, made once: all of a sandbox's hosts have one key, which never leaves this process. */
interface Issuer {
  certificate: X509.X509Certificate;
  signingKey: CryptoKey;
  publicKey: CryptoKey;
  /** PEM, of the hosts. */
  key: string;
}

const issuers = new WeakMap<Authority, Promise<Issuer>>();

async function makeIssuer(authority: Authority): Promise<Issuer> {
  const { X509Certificate } = await x509();
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  return {
    certificate: new X509Certificate(authority.certificate),
    signingKey: await signingKey(authority.key),
    publicKey: keys.publicKey,
    key: await privatePem(keys.privateKey),
  };
}

function issuerOf(authority: Authority): Promise<Issuer> {
  const known = issuers.get(authority) ?? makeIssuer(authority);
  issuers.set(authority, known);
  known.catch(() => issuers.delete(authority)); // the next one tries again
  return known;
}

/** @param host a name or an address */
export async function certify(authority: Authority, host: string): Promise<HostCertificate> {
  const { X509CertificateGenerator, BasicConstraintsExtension, KeyUsagesExtension, ...more } = await x509();
  const { certificate: issuer, signingKey, publicKey, key } = await issuerOf(authority);
  const certificate = await X509CertificateGenerator.create({
    // A name may be longer than a common name's 64 characters; what counts is below.
    subject: "CN=StacyVM sandbox",
    issuer: issuer.subject,
    publicKey,
    signingKey,
    signingAlgorithm: ALGORITHM,
    ...validFor(HOST_MS),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(more.KeyUsageFlags.digitalSignature, true),
      new more.ExtendedKeyUsageExtension([more.ExtendedKeyUsage.serverAuth]),
      new more.SubjectAlternativeNameExtension([{ type: isIP(host) === 0 ? "dns" : "ip", value: host }]),
      await more.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return {
    cert: `${certificate.toString("pem")}\n${authority.certificate}`,
    key,
  };
}

function validFor(ms: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - BEFORE_MS), notAfter: new Date(now + ms) };
}

async function privatePem(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", key)).toString("base64");
  return `-----BEGIN PRIVATE KEY-----\n${der.match(/.{1,64}/g)?.join("\n")}\n-----END PRIVATE KEY-----\n`;
}

function signingKey(pem: string): Promise<CryptoKey> {
  const der = Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ""), "base64");
  return crypto.subtle.importKey("pkcs8", der, ALGORITHM, false, ["sign"]);
}
