import { isSignetError, messageOf } from '../../errors.ts';
import type { Entry } from '../../spiffe/entry.ts';
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId, type TrustDomain } from '../../spiffe/id.ts';
import { isNarrowing, parseSelector, type Selector } from '../../spiffe/selector.ts';
import {
  brokenDnsName,
  FEDERATION_NOTE,
  JWT_TTL,
  MOST_DNS_NAMES,
  MOST_SELECTORS,
  parseObject,
  readFederatesWith,
  readHint,
  readTtl,
  X509_TTL,
  type RuleOrigin,
} from './common-spec.ts';
import { areForgeable, BINDING_SELECTOR } from './forgeable.ts';
import { show } from './problems.ts';
import type { ClassOptions, ParsedRule, StaticRule } from './rule.ts';
import type { SpecReader } from './spec.ts';

const MEMBERS = [
  'spiffeID',
  'parentID',
  'selectors',
  'federatesWith',
  'x509SVIDTTL',
  'jwtSVIDTTL',
  'dnsNames',
  'hint',
  'admin',
  'downstream',
  'storeSVID',
  'className',
];

const PARENT_NOTE = 'parentID: there are no parents here; the entry counts on every node';

export interface StaticEntryOptions extends ClassOptions {
  readonly trustDomain: TrustDomain;
}

/** Reads a ClusterStaticEntry (spire.spiffe.io/v1alpha1) as the API server returns it. Never throws for what is in it. */
export function parseClusterStaticEntry(object: Readonly<Record<string, unknown>>, options: StaticEntryOptions): ParsedRule {
  return parseObject(object, 'ClusterStaticEntry', options, (reader, base) => readRule(reader, base, options.trustDomain));
}

function readRule(reader: SpecReader, base: RuleOrigin, trustDomain: TrustDomain): StaticRule | undefined {
  reader.only(MEMBERS);
  reader.unsupported('admin', 'there is no server whose administrator a workload could be');
  reader.unsupported('downstream', 'there is no server below which another could be');
  reader.unsupported('storeSVID', 'SVIDs are handed to workloads and put into no store');
  reader.text('className');
  const parent = reader.text('parentID');
  const federatesWith = readFederatesWith(reader);
  const notes = [...(parent === '' ? [] : [PARENT_NOTE]), ...(federatesWith.length === 0 ? [] : [FEDERATION_NOTE])];
  const entry = readEntry(reader, trustDomain);
  return entry && { ...base, kind: 'static', order: 'static', notes, federatesWith, entry };
}

function readEntry(reader: SpecReader, trustDomain: TrustDomain): Entry | undefined {
  const id = readId(reader, trustDomain);
  const rest = {
    selectors: readSelectors(reader),
    x509TtlMs: readTtl(reader, 'x509SVIDTTL', X509_TTL),
    jwtTtlMs: readTtl(reader, 'jwtSVIDTTL', JWT_TTL),
    dnsNames: reader.list('dnsNames', MOST_DNS_NAMES, (text, path) => readDnsName(reader, text, path)),
    hint: readHint(reader),
  };
  return id && { id, ...rest, dnsNames: [...new Set(rest.dnsNames)], priority: 0 };
}

function readId(reader: SpecReader, trustDomain: TrustDomain): SpiffeId | undefined {
  const text = reader.value('spiffeID');
  const allowed = `a SPIFFE ID in the trust domain ${trustDomain}, with a path`;
  const id = typeof text === 'string' ? attempt(() => parseSpiffeId(text)) : undefined;
  if (id instanceof Error) reader.refuse('spiffeID', show(text), allowed, id.message);
  else if (id !== undefined && trustDomainOf(id) === trustDomain && pathOf(id) !== '') return id;
  else reader.refuse('spiffeID', show(text), allowed);
  return undefined;
}

function readSelectors(reader: SpecReader): Selector[] {
  const before = reader.problems.length;
  const selectors = reader.list('selectors', MOST_SELECTORS, (text, path) => {
    const selector = attempt(() => parseSelector(text));
    if (!(selector instanceof Error)) return selector;
    return reader.refuse(path, show(text), 'a selector that this agent knows', selector.message);
  });
  if (reader.problems.length > before) return selectors;
  if (selectors.length === 0)
    reader.refuse('selectors', show(reader.value('selectors')), 'at least one selector, such as k8s:ns:default');
  else if (selectors.every(isNarrowing)) {
    reader.refuse('selectors', show(selectors), 'also one that an exec cannot change, such as k8s:ns:shop or unix:uid:1000');
  } else if (areForgeable(selectors)) {
    reader.refuse('selectors', show(selectors), BINDING_SELECTOR);
  }
  return [...new Set(selectors)];
}

function readDnsName(reader: SpecReader, text: string, path: string): string | undefined {
  const allowed = brokenDnsName(text);
  return allowed === undefined ? text : reader.refuse(path, show(text), allowed);
}

function attempt<T>(read: () => T): T | Error {
  try {
    return read();
  } catch (error) {
    if (!isSignetError(error)) throw error;
    return new Error(messageOf(error));
  }
}
