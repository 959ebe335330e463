import { createReadStream } from 'node:fs';
import type {
  DryRun,
  DryRunPod,
  DryRunRule,
  EntryVerdict,
  Explanation,
  IdentityFact,
  RuleVerdict,
  Subject,
} from '../admin/messages.ts';
import { messageOf } from '../errors.ts';
import type { Arguments } from './arguments.ts';
import { askAgent, formatProblem } from './admin.ts';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { readText, type Io } from './io.ts';
import { fields, jsonDocument, printable, table, type Paint } from './render.ts';
import { formatDistance, formatTime } from './time.ts';
import { UsageError } from './usage-error.ts';

/** As many as the agent takes. */
const MOST_RULE_BYTES = 1_048_576;

/** Tells which identities a process or a pod gets and why, or what rules in a file would change. */
export async function explain(context: Context): Promise<ExitCode> {
  const { args, io, paint, print } = context;
  const json = args.json;
  const target = targetOf(args);
  const file = args.text('rules');
  if (file === undefined) {
    return askAgent<Explanation>(context, target, undefined, async (answer) => {
      await print(json ? jsonDocument(answer) : describeExplanation(answer, io.now(), paint));
      return answer.answer.kind === 'identities' ? EXIT.ok : EXIT.noIdentity;
    });
  }
  const text = await readRules(file, io);
  return askAgent<DryRun>(context, target, text, async (answer) => {
    await print(json ? jsonDocument(answer) : describeDryRun(answer, file, paint));
    return answer.rules.some(({ problems }) => problems.length > 0) ? EXIT.usage : EXIT.ok;
  });
}

/** @throws UsageError unless exactly one thing is asked about */
function targetOf(args: Arguments): string {
  const [pid, pod, container, rules] = [args.count('pid'), args.text('pod'), args.text('container'), args.text('rules')];
  if ([pid, pod, rules].filter((value) => value !== undefined).length !== 1) {
    throw new UsageError('say what to explain: one of --pid N, --pod NAMESPACE/NAME and --rules FILE');
  }
  if (container !== undefined && pod === undefined) throw new UsageError('--container goes with --pod');
  if (pod !== undefined && !/^[^/]+\/[^/]+$/.test(pod)) {
    throw new UsageError(`--pod is ${JSON.stringify(pod)}; allowed is NAMESPACE/NAME, such as default/web-0`);
  }
  if (rules !== undefined) return '/v1/explain';
  const query = new URLSearchParams(
    pid === undefined ? { pod: pod ?? '', ...(container === undefined ? {} : { container }) } : { pid: String(pid) },
  );
  return `/v1/explain?${query.toString()}`;
}

async function readRules(file: string, io: Io): Promise<string> {
  try {
    return await readText(file === '-' ? io.stdin : createReadStream(file), MOST_RULE_BYTES, io.signal);
  } catch (error) {
    if (io.signal.aborted) throw error;
    const problem =
      error instanceof RangeError
        ? `${file} has more than ${MOST_RULE_BYTES} bytes`
        : `${file} cannot be read: ${messageOf(error)}`;
    throw new UsageError(problem, { cause: error });
  }
}

/** For people: who it is, what is known of it, rule by rule what applies, and what it gets. */
export function describeExplanation(explanation: Explanation, nowMs: number, paint: Paint): string {
  const { subject, selectors, rules, static_entries: entries, identities, answer, notes } = explanation;
  const color = answer.kind === 'identities' ? 'green' : 'red';
  const sections = [
    `${paint('bold', titleOf(subject))}\n${fields(subjectRows(subject), paint)}`,
    section(
      'Selectors',
      selectors.length === 0
        ? ''
        : table(
            ['SELECTOR', 'FROM'],
            selectors.map(({ selector, from }) => [printable(selector), printable(from)]),
            paint,
          ),
      paint,
    ),
    section('Rules', verdictLines(rules.map(ruleRow), paint), paint),
    section('Static entries', verdictLines(entries.map(entryRow), paint), paint),
    section('Identities', identities.map((identity) => describeIdentity(identity, nowMs, paint)).join(''), paint),
    `${paint('bold', 'Answer')}: ${paint(color, printable(answer.why))}\n`,
    notes.map((text) => `${paint('dim', 'Note')}: ${printable(text)}\n`).join(''),
  ];
  return sections.filter((text) => text !== '').join('\n');
}

function section(title: string, body: string, paint: Paint): string {
  return body === '' ? '' : `${paint('bold', title)}\n${body}`;
}

function titleOf({ process, pod, container }: Subject): string {
  const inside = container === undefined ? '' : `, container ${printable(container)}`;
  const place = pod === undefined ? '' : `pod ${printable(pod.namespace)}/${printable(pod.name)}${inside}`;
  if (process === undefined) return place.replace('pod', 'Pod');
  return `Process ${process.pid} (${printable(process.command)})${place === '' ? '' : ` in ${place}`}`;
}

const PLACES: Readonly<Record<Subject['placement']['kind'], string>> = {
  pod: 'in a pod',
  host: 'on the host, in no container',
  unclear: 'not clear',
  unattested: 'not looked at',
};

function subjectRows({ process, placement, pod }: Subject): (readonly [string, ...string[]])[] {
  const why = placement.why === '' ? '' : `: ${printable(placement.why)}`;
  const groups = process === undefined || process.groups.length === 0 ? '' : `, groups ${process.groups.join(', ')}`;
  return [
    ['User', ...(process === undefined ? [] : [`uid ${process.uid}, gid ${process.gid}${groups}`])],
    ['Place', `${PLACES[placement.kind]}${why}`, ...cgroupLines(placement.cgroup)],
    [
      'Account',
      ...(pod === undefined
        ? []
        : [pod.service_account === '' ? 'no service account' : `service account ${printable(pod.service_account)}`]),
    ],
    ['Pod UID', ...(pod === undefined ? [] : [printable(pod.uid)])],
    ['Phase', ...(pod === undefined ? [] : [`${printable(pod.phase || 'not told')}${pod.deleting ? ', being deleted' : ''}`])],
  ];
}

/** Each path once: on cgroup v1 most hierarchies have the same. */
function cgroupLines(lines: readonly string[]): string[] {
  const paths = new Map<string, string[]>();
  for (const line of lines) {
    const [, controllers = '', path = line] = /^[0-9]+:([^:]*):(.*)$/s.exec(line) ?? [];
    paths.set(path, [...(paths.get(path) ?? []), controllers === '' ? 'v2' : controllers]);
  }
  return Array.from(paths, ([path, names]) => printable(paths.size === 1 ? path : `${path} (${names.join(', ')})`));
}

interface Verdict {
  readonly applies: boolean;
  readonly name: string;
  readonly why: string;
  readonly more: readonly string[];
}

function ruleRow({ kind, name, applies, why, spiffe_id: id, problems }: RuleVerdict): Verdict {
  const what = name === '' || name === kind ? kind : `${kind} ${name}`;
  return { applies, name: what, why, more: [...(id === undefined ? [] : [id]), ...problems] };
}

function entryRow({ spiffe_id: id, from, applies, why }: EntryVerdict): Verdict {
  return { applies, name: id, why: `${why} (${from})`, more: [] };
}

/** A check mark or a cross, the name, the reason; what belongs to it stands below the reason. */
function verdictLines(verdicts: readonly Verdict[], paint: Paint): string {
  const width = Math.max(0, ...verdicts.map(({ name }) => printable(name).length));
  return verdicts
    .flatMap(({ applies, name, why, more }) => [
      `  ${applies ? paint('green', '✓') : paint('red', '✗')} ${printable(name).padEnd(width)}  ${printable(why)}\n`,
      ...more.map((line) => `    ${' '.repeat(width)}  ${printable(line)}\n`),
    ])
    .join('');
}

function describeIdentity(identity: IdentityFact, nowMs: number, paint: Paint): string {
  const { spiffe_id: id, hint, dns_names: dnsNames, x509, jwt } = identity;
  const title = `  ${paint('green', printable(id))}${identity.default ? ' (default)' : ''}\n`;
  const when = (time: string): string => `${formatTime(Date.parse(time))} (${formatDistance(Date.parse(time), nowMs)})`;
  const failures = x509 === undefined || x509.failures === 0 ? '' : `; ${x509.failures} failed attempts in a row`;
  const rows: (readonly [string, ...string[]])[] = [
    ['Hint', ...(hint === '' ? [] : [printable(hint)])],
    ['DNS names', ...dnsNames.map(printable)],
    [
      'X509-SVID',
      x509?.not_after === undefined
        ? `none held now; it is made when it is asked for${failures}`
        : `valid until ${when(x509.not_after)}${failures}`,
    ],
    ['Serial', ...(x509?.serial === undefined ? [] : [printable(x509.serial)])],
    [
      'Renewal',
      ...(x509 === undefined
        ? []
        : [
            x509.renew_at === undefined
              ? 'none while nobody reads it'
              : `${when(x509.renew_at)}, ${x509.readers} ${x509.readers === 1 ? 'reader' : 'readers'}`,
          ]),
    ],
    [
      'JWT-SVIDs',
      ...(jwt === undefined
        ? []
        : [`${jwt.tokens} held${jwt.soonest_expiry === undefined ? '' : `, the first ends ${when(jwt.soonest_expiry)}`}`]),
    ],
  ];
  return title + fields(rows, paint, '    ');
}

/** For people: each rule of the file, and each pod that would have something else. */
export function describeDryRun({ rules, pods, notes }: DryRun, file: string, paint: Paint): string {
  const changed = pods.filter((pod) => pod.changed || pod.problems.length > 0);
  const rest = pods.length - changed.length;
  const [count, stay] = rest === 1 ? ['1 pod', 'stays as it is'] : [`${rest} pods`, 'stay as they are'];
  const title = `Rules of ${file === '-' ? 'standard input' : printable(file)}`;
  return [
    `${paint('bold', title)} (nothing is applied)\n${rules.map((rule) => describeRule(rule, paint)).join('')}`,
    `${paint('bold', 'Pods of this node')}\n${changed.map((pod) => describePod(pod, paint)).join('')}  ${count} ${stay}.\n`,
    notes.map((text) => `${paint('dim', 'Note')}: ${printable(text)}\n`).join(''),
  ]
    .filter((text) => text !== '')
    .join('\n');
}

const CHANGES: Readonly<Record<DryRunRule['change'], string>> = {
  new: 'new',
  changed: 'takes the place of the one that is there',
  same: 'as it is already',
  unused: 'of another class: this agent leaves it alone',
};

function describeRule({ kind, name, change, pods, problems }: DryRunRule, paint: Paint): string {
  const mark = problems.length > 0 ? paint('red', '✗') : paint('green', '✓');
  const applies = pods === 1 ? 'applies to 1 pod here' : `applies to ${pods} pods here`;
  const state = problems.length > 0 ? 'refused' : `${CHANGES[change]}${change === 'unused' ? '' : `; ${applies}`}`;
  return (
    [
      `  ${mark} ${printable(kind)} ${printable(name)}: ${state}`,
      ...problems.map((problem) => `  ${formatProblem(problem)}`),
    ].join('\n') + '\n'
  );
}

function describePod({ namespace, name, now, then, problems }: DryRunPod, paint: Paint): string {
  const lost = now.filter((id) => !then.includes(id)).map((id) => paint('red', `    - ${printable(id)}`));
  const kept = then.map((id, index) => {
    const mark = index === 0 ? ' (default)' : '';
    return now.includes(id) ? `      ${printable(id)}${mark}` : paint('green', `    + ${printable(id)}${mark}`);
  });
  return (
    [
      `  ${printable(namespace)}/${printable(name)}`,
      ...lost,
      ...kept,
      ...problems.map((text) => paint('yellow', `    ! ${printable(text)}`)),
    ].join('\n') + '\n'
  );
}
