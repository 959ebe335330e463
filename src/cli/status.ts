import type { AgentStatus, AuthorityFact, PodIndexFact } from '../admin/messages.ts';
import { askAgent } from './admin.ts';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { fields, jsonDocument, printable, type Paint } from './render.ts';
import { formatDistance, formatTime } from './time.ts';

/** Tells how the agent is. Ends with 1 when it is not ready; degraded is ready. */
export async function status(context: Context): Promise<ExitCode> {
  const { args, io, paint, print } = context;
  const json = args.json;
  return askAgent<AgentStatus>(context, '/v1/status', undefined, async (answer) => {
    await print(json ? jsonDocument(answer) : describeStatus(answer, io.now(), paint));
    return answer.ready ? EXIT.ok : EXIT.refused;
  });
}

export function describeStatus(agent: AgentStatus, nowMs: number, paint: Paint): string {
  const when = (time: string | undefined): string =>
    time === undefined ? 'never' : `${formatTime(Date.parse(time))} (${formatDistance(Date.parse(time), nowMs)})`;
  const { identities, rules } = agent;
  const entries = rules.static_entries === 1 ? '1 static entry' : `${rules.static_entries} static entries`;
  const soonest = identities.soonest_expiry === undefined ? '' : `; the first X509-SVID ends ${when(identities.soonest_expiry)}`;
  return fields(
    [
      [
        'Agent',
        stateOf(agent, paint),
        ...agent.reasons.map(({ message, detail }) => printable(detail === undefined ? message : `${message}: ${detail}`)),
      ],
      ['Version', `${printable(agent.version)}, process ${agent.pid}, started ${when(agent.started_at)}`],
      ['Trust domain', printable(agent.trust_domain)],
      ['Socket', `${printable(agent.socket)}, ${plural(agent.connections, 'connection')}`],
      ['Authority', ...authorityLines(agent.authority, when, paint)],
      ['Pods', ...(agent.pods === undefined ? ['are not attested'] : podLines(agent.pods, when, paint))],
      ['Identities', `${plural(identities.x509, 'X509-SVID')}, ${plural(identities.jwt, 'JWT-SVID')}${soonest}`],
      ['Rules', `${plural(rules.total, 'rule')}, ${rules.refused} refused; ${entries}`],
    ],
    paint,
    '',
  );
}

function stateOf({ ready, degraded }: AgentStatus, paint: Paint): string {
  if (!ready) return paint('red', 'not ready');
  return degraded ? paint('yellow', 'ready, but degraded') : paint('green', 'ready');
}

type When = (time: string | undefined) => string;

function authorityLines(authority: AuthorityFact, when: When, paint: Paint): string[] {
  const { type, x509_not_after: x509, jwt_not_after: jwt, last_success: success, failing } = authority;
  return [
    `${printable(type)}; ${plural(authority.roots, 'root')}, ${plural(authority.jwt_keys, 'JWT key')} in the bundle`,
    ...(x509 === undefined ? [] : [`the certificate that signs ends ${when(x509)}`]),
    ...(jwt === undefined ? [] : [`the JWT key that signs ends ${when(jwt)}`]),
    ...(success === undefined ? [] : [`the CA above was last reached ${when(success)}`]),
    ...(failing === undefined ? [] : [paint('yellow', printable(failing))]),
  ];
}

function podLines(
  { node, size, unlisted, synced, last_contact: contact, conflicts, failing }: PodIndexFact,
  when: When,
  paint: Paint,
): string[] {
  const gone = unlisted === 0 ? '' : `, ${unlisted} of them gone from the API`;
  return [
    `${plural(size, 'pod')} on node ${printable(node)}${gone}`,
    synced ? `complete; the API server last told something ${when(contact)}` : paint('yellow', 'the list is not complete yet'),
    ...(conflicts === 0
      ? []
      : [
          paint(
            'red',
            `two static pods have claimed one hash ${conflicts === 1 ? 'once' : `${conflicts} times`}: see the log of the agent`,
          ),
        ]),
    ...(failing === undefined ? [] : [paint('yellow', printable(failing))]),
  ];
}

function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
