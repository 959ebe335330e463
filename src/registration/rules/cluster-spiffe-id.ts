import {
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
import { parseLabelSelector, type LabelSelector } from './label-selector.ts';
import { show } from './problems.ts';
import type { ClassOptions, OrderClass, ParsedRule, PodRule } from './rule.ts';
import type { SpecReader } from './spec.ts';
import type { Template } from './syntax.ts';

const MEMBERS = [
  'spiffeIDTemplate',
  'podSelector',
  'namespaceSelector',
  'dnsNameTemplates',
  'workloadSelectorTemplates',
  'ttl',
  'jwtTtl',
  'federatesWith',
  'admin',
  'downstream',
  'autoPopulateDNSNames',
  'className',
  'fallback',
  'hint',
];

const ID_TEMPLATE = 'a template of a whole SPIFFE ID, such as spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}';

/** Reads a ClusterSPIFFEID (spire.spiffe.io/v1alpha1) as the API server returns it. Never throws for what is in it. */
export function parseClusterSpiffeId(object: Readonly<Record<string, unknown>>, options: ClassOptions): ParsedRule {
  return parseObject(object, 'ClusterSPIFFEID', options, readRule);
}

function readRule(reader: SpecReader, base: RuleOrigin): PodRule | undefined {
  reader.only(MEMBERS);
  refuseUnsupported(reader);
  reader.text('className');
  const idTemplate = readIdTemplate(reader);
  const podSelector = parseLabelSelector(reader.value('podSelector'), reader.at('podSelector'), reader.problems);
  const namespaceSelector = parseLabelSelector(
    reader.value('namespaceSelector'),
    reader.at('namespaceSelector'),
    reader.problems,
  );
  const federatesWith = readFederatesWith(reader);
  const rest = {
    dnsNameTemplates: reader.list('dnsNameTemplates', MOST_DNS_NAMES, (text, path) => reader.template(text, path)),
    workloadSelectorTemplates: reader.list('workloadSelectorTemplates', MOST_SELECTORS, (text, path) =>
      reader.template(text, path),
    ),
    x509TtlMs: readTtl(reader, 'ttl', X509_TTL),
    jwtTtlMs: readTtl(reader, 'jwtTtl', JWT_TTL),
    hint: readHint(reader),
    order: orderOf(reader.flag('fallback'), podSelector, namespaceSelector),
    notes: federatesWith.length === 0 ? [] : [FEDERATION_NOTE],
  };
  if (idTemplate === undefined) return undefined;
  return { ...base, kind: 'pod', idTemplate, podSelector, namespaceSelector, namespaces: [], federatesWith, ...rest };
}

function refuseUnsupported(reader: SpecReader): void {
  reader.unsupported('admin', 'there is no server whose administrator a workload could be');
  reader.unsupported('downstream', 'there is no server below which another could be');
  reader.unsupported('autoPopulateDNSNames', 'Services are not watched on the node; name them in dnsNameTemplates');
}

function readIdTemplate(reader: SpecReader): Template | undefined {
  const text = reader.text('spiffeIDTemplate');
  if (text === '') {
    if (reader.value('spiffeIDTemplate') === undefined || reader.value('spiffeIDTemplate') === '') {
      reader.refuse('spiffeIDTemplate', show(reader.value('spiffeIDTemplate')), ID_TEMPLATE);
    }
    return undefined;
  }
  const template = reader.template(text, 'spiffeIDTemplate');
  if (template !== undefined && !beginsAsId(template)) reader.refuse('spiffeIDTemplate', show(text), ID_TEMPLATE);
  return template;
}

/** What a template begins with is written out or not known before it is rendered. */
export function beginsAsId({ nodes: [first] }: Template): boolean {
  if (first?.kind !== 'text') return first !== undefined;
  return first.text.startsWith('spiffe://') || 'spiffe://'.startsWith(first.text);
}

/** An empty selector selects everything and says no more than none. */
function orderOf(fallback: boolean, pods: LabelSelector = [], namespaces: LabelSelector = []): OrderClass {
  if (fallback) return 'fallback';
  if (pods.length > 0) return namespaces.length > 0 ? 'pod-and-namespace' : 'pod';
  return namespaces.length > 0 ? 'namespace' : 'all';
}
