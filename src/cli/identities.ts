import { X509Certificate } from 'node:crypto';
import { readNames } from '../client/certificate.ts';
import type { X509Bundles, X509Context, X509Identity } from '../client/responses.ts';
import { trustDomainOf } from '../spiffe/id.ts';
import { isoTime, keyType, viewCertificate } from './certificates.ts';
import { fields, printable, type Paint, type Row } from './render.ts';
import { formatDistance, formatTime } from './time.ts';

/** An X.509 context as JSON shows it: never a private key. */
export function viewContext(context: X509Context, nowMs: number): object {
  return {
    svids: context.identities.map((identity, index) => viewIdentity(identity, index === 0, nowMs)),
    bundles: viewBundles(context.bundles),
    crl_count: context.crls.length,
  };
}

/** Bundles as JSON shows them. */
export function viewBundles(bundles: X509Bundles): object[] {
  return [...bundles].map(([trustDomain, authorities]) => ({
    trust_domain: trustDomain,
    x509_authorities: authorities.map(viewCertificate),
  }));
}

/** An X.509 context for people. */
export function describeContext(context: X509Context, nowMs: number, paint: Paint): string {
  const { identities, bundles } = context;
  const parts = identities.map((identity, index) => {
    const which = identities.length === 1 ? '' : ` ${index + 1} of ${identities.length}${index === 0 ? ' (default)' : ''}`;
    return `${paint('bold', `X509-SVID${which}`)}\n${fields(identityRows(identity, nowMs, paint), paint)}`;
  });
  return [...parts, describeBundles(bundles, nowMs, paint)].join('\n');
}

/** Each trust domain's X.509 authorities for people. */
export function describeBundles(bundles: X509Bundles, nowMs: number, paint: Paint): string {
  const rows = [...bundles].map(([trustDomain, authorities]) => {
    const lines = authorities.map((der) => fields(authorityRows(der, nowMs, paint), paint));
    return `${paint('bold', `X.509 bundle of ${trustDomain}`)}\n${lines.join('\n')}`;
  });
  return rows.join('\n');
}

/** When a validity ends, red when it has, yellow when less than a tenth is left. */
export function formatExpiry(notBefore: number, notAfter: number, nowMs: number, paint: Paint): string {
  const text = `${formatTime(notAfter)} (${formatDistance(notAfter, nowMs)})`;
  if (notAfter <= nowMs) return paint('red', `${text}, expired`);
  return notAfter - nowMs < (notAfter - notBefore) / 10 ? paint('yellow', text) : text;
}

function viewIdentity(identity: X509Identity, isDefault: boolean, nowMs: number): object {
  const leaf = new X509Certificate(leafOf(identity));
  return {
    spiffe_id: identity.id,
    trust_domain: trustDomainOf(identity.id),
    hint: identity.hint,
    default: isDefault,
    serial: identity.serial.toLowerCase(),
    key_type: keyType(leaf.publicKey),
    not_before: isoTime(identity.notBefore),
    not_after: isoTime(identity.notAfter),
    expires_in_seconds: Math.floor((identity.notAfter - nowMs) / 1_000),
    dns_names: readNames(leafOf(identity)).dnsNames,
    chain: identity.chain.map(viewCertificate),
  };
}

function identityRows(identity: X509Identity, nowMs: number, paint: Paint): Row[] {
  const leaf = viewCertificate(leafOf(identity));
  const { notBefore, notAfter } = identity;
  const links = identity.chain.map((der) => viewCertificate(der).issuer);
  return [
    ['SPIFFE ID', paint('green', identity.id)],
    ['Hint', ...(identity.hint === '' ? [] : [printable(identity.hint)])],
    ['Serial', leaf.serial],
    ['Key', leaf.key_type],
    ['Valid from', `${formatTime(notBefore)} (${formatDistance(notBefore, nowMs)})`],
    ['Valid until', formatExpiry(notBefore, notAfter, nowMs, paint)],
    ['DNS names', ...readNames(leafOf(identity)).dnsNames.map(printable)],
    ['Chain', `${printable(leaf.subject)} (leaf)`, ...links.map((issuer) => `issued by ${printable(issuer)}`)],
  ];
}

function authorityRows(der: Buffer, nowMs: number, paint: Paint): Row[] {
  const view = viewCertificate(der);
  const [from, until] = [Date.parse(view.not_before), Date.parse(view.not_after)];
  return [
    ['Subject', printable(view.subject)],
    ['Key', view.key_type],
    ['SHA-256', view.sha256],
    ['Valid until', formatExpiry(from, until, nowMs, paint)],
  ];
}

function leafOf(identity: X509Identity): Buffer {
  const [leaf] = identity.chain;
  if (leaf === undefined) throw new RangeError('an identity has no certificate');
  return leaf;
}
