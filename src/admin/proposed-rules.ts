import { isDeepStrictEqual } from 'node:util';
import { parseConfig } from '../config/load.ts';
import { ConfigError, show, type Problem } from '../config/problems.ts';
import type { Entry } from '../spiffe/entry.ts';
import { parseClusterSpiffeId } from '../registration/rules/cluster-spiffe-id.ts';
import { parseClusterStaticEntry } from '../registration/rules/cluster-static-entry.ts';
import type { ParsedRule, Rule } from '../registration/rules/rule.ts';
import { configRules } from '../registration/rules/rules.ts';
import type { DryRunRule, RuleProblem } from './messages.ts';
import type { RuleDocument } from './rule-file.ts';
import type { RegistrationOptions } from './source.ts';

const API_VERSION = 'spire.spiffe.io/v1alpha1';
const KNOWN = 'ClusterSPIFFEID or ClusterStaticEntry, or a document with "entries"';

/** What was read of one document. */
export interface ReadRule {
  readonly kind: string;
  readonly name: string;
  readonly change: DryRunRule['change'];
  /** `<source> <name>` of the rules that it stands for. */
  readonly ruleNames: readonly string[];
  readonly problems: readonly RuleProblem[];
}

export interface Proposed {
  /** All rules as they would be. A document that is refused changes nothing. */
  readonly rules: readonly Rule[];
  readonly read: readonly ReadRule[];
}

/** What `rules` would be after `documents` had been applied, as kubectl applies them. */
export function applyRules(documents: readonly RuleDocument[], rules: readonly Rule[], options: RegistrationOptions): Proposed {
  let proposed = rules;
  const seen = new Set<string>();
  const read: ReadRule[] = [];
  for (const document of documents) {
    const repeated = seen.has(`${document.kind} ${document.name}`);
    seen.add(`${document.kind} ${document.name}`);
    const { next, ...rest } = repeated
      ? refused(document, [problemAt('metadata.name', document.name, 'each rule once')])
      : readDocument(document, proposed, options);
    proposed = next ?? proposed;
    read.push(rest);
  }
  return { rules: proposed, read };
}

type Read = ReadRule & { readonly next?: readonly Rule[] };

function readDocument(document: RuleDocument, rules: readonly Rule[], options: RegistrationOptions): Read {
  const { kind, object, name } = document;
  if (kind === 'entries') return readEntries(document, rules, options);
  if (kind !== 'ClusterSPIFFEID' && kind !== 'ClusterStaticEntry') {
    return refused(document, [problemAt('kind', kind, KNOWN)]);
  }
  if (object['apiVersion'] !== API_VERSION) {
    return refused(document, [problemAt('apiVersion', object['apiVersion'], API_VERSION)]);
  }
  if (name === '') return refused(document, [problemAt('metadata.name', undefined, 'a name')]);
  const parsed = kind === 'ClusterSPIFFEID' ? parseClusterSpiffeId(object, options) : parseClusterStaticEntry(object, options);
  return readParsed(document, parsed, rules);
}

function readParsed(document: RuleDocument, parsed: ParsedRule, rules: readonly Rule[]): Read {
  const { kind, name } = document;
  const others = rules.filter((rule) => rule.source !== kind || rule.name !== name);
  // Another class takes a rule away that was this agent's.
  if (parsed.kind === 'foreign') return { kind, name, change: 'unused', ruleNames: [], problems: [], next: others };
  if (parsed.kind === 'refused') return refused(document, parsed.refused.problems);
  const before = rules.find((rule) => rule.source === kind && rule.name === name);
  return {
    kind,
    name,
    change: changeOf(before, parsed.rule),
    ruleNames: [`${kind} ${name}`],
    problems: [],
    next: [...others, parsed.rule],
  };
}

function changeOf(before: Rule | undefined, after: Rule): DryRunRule['change'] {
  if (before === undefined) return 'new';
  return isDeepStrictEqual({ ...before, uid: '', generation: 0 }, { ...after, uid: '', generation: 0 }) ? 'same' : 'changed';
}

function readEntries(document: RuleDocument, rules: readonly Rule[], options: RegistrationOptions): Read {
  const before = rules.filter(({ source }) => source === 'config');
  try {
    const next = configRules(parseEntries(document.object['entries'], options));
    const change = isDeepStrictEqual(before.map(entryOf), next.map(entryOf)) ? 'same' : 'changed';
    const name = next.length === 1 ? '1 entry' : `${next.length} entries`;
    const all = [...rules.filter(({ source }) => source !== 'config'), ...next];
    return { kind: 'entries', name, change, ruleNames: next.map((rule) => `config ${rule.name}`), problems: [], next: all };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return refused(document, error.problems);
  }
}

/** By the rules of the configuration, with everything that an entry may depend on switched on. */
function parseEntries(entries: unknown, { trustDomain }: RegistrationOptions): readonly Entry[] {
  const kubernetes = {
    clusterName: 'any',
    kubernetes: { nodeName: 'any' },
    attestation: { unix: { path: true }, kubernetes: { enabled: true } },
  };
  const text = JSON.stringify({ trustDomain, ...kubernetes, authority: { singleNode: true, ttl: '87600h' }, entries });
  return parseConfig(text, 'entries', {}).entries;
}

function entryOf(rule: Rule): Entry | undefined {
  return rule.kind === 'static' ? rule.entry : undefined;
}

function refused({ kind, name, where }: RuleDocument, problems: readonly Problem[]): Read {
  const placed = problems.map(({ path, found, allowed, hint }) => ({
    path: path === '' ? where : `${where}: ${path}`,
    found,
    allowed: hint === undefined ? allowed : `${allowed}; ${hint}`,
  }));
  return { kind: kind === '' ? 'a document' : kind, name, change: 'unused', ruleNames: [], problems: placed };
}

function problemAt(path: string, found: unknown, allowed: string): Problem {
  return { path, found: show(found === '' ? undefined : found), allowed };
}
